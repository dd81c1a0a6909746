"""The commands as clients: of an OpenAI-style server, and of the router."""
