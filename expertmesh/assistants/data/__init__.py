"""The data assistant: scripts that are run, and words that are checked against their output."""
