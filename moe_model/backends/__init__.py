"""Which code computes on a machine, and in which layout it holds weights."""
