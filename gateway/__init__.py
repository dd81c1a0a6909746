"""The HTTP edge: APIs, text in, text out. Never imports torch."""
