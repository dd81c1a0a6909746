"""Real clients, unmodified, against the real gateway: `make test-clients`."""
