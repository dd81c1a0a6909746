"""Tools of MCP servers: programs that the user names and confirms, outside the sandbox."""
