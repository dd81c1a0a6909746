"""What is kept of a run: its trace, its outputs, and what puts the work folder back."""
