"""`expertmesh model`."""
