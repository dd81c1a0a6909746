"""The small trained checkpoint in the box, and everything that made it."""
