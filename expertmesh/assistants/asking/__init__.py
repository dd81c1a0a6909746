"""A model is asked for a text, code or data, on a server or in this process."""
