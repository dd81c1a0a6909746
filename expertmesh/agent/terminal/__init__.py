"""A run on a terminal: what is shown and asked while it goes on, and the report at its end."""
