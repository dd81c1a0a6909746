"""Which code computes on a machine: one protocol, one choice."""
