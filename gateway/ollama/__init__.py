"""Ollama's API over the gateway's core."""
