"""The agent's tools, one file each, and the registry that checks calls."""
