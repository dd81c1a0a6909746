"""Which added tokens does M2's format have? Source: the published tokenizer.json."""

PROMPT_START = "]~!b["
ROLE_START = "]~b]"
TURN_END = "[e~["
THINK_START = "<think>"
THINK_END = "</think>"
TOOL_CALLS_START = "<minimax:tool_call>"
TOOL_CALLS_END = "</minimax:tool_call>"
