"""Which pool holds which pieces."""
