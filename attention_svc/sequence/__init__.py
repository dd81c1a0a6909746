"""One request's state."""
