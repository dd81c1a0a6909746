"""`expertmesh experts`."""
