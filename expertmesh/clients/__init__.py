"""Clients that the commands use: of an OpenAI-compatible server, and of the router."""
