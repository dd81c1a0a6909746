"""What a placement would achieve, and pictures of routing."""
