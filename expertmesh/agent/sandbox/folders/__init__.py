"""What a command sees and may write, as whom, and how that is removed."""
