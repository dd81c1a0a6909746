"""A started command: watched, fed, read, and ended with all that it has started."""
