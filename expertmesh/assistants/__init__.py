"""Assistants for development and data: they run what they write, and say what held."""
