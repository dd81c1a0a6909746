"""Text to token ids, and token ids to text, thinking and tool calls."""
