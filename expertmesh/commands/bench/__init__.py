"""`expertmesh bench`."""
