"""OpenAI's Responses API over the gateway's core."""
