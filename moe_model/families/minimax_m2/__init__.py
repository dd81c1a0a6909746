"""MiniMax-M2: its config keys, tensor names, chat format and the parser of its output."""
