"""`expertmesh up`."""
