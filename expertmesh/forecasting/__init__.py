"""What a placement would give, and pictures of routing."""
