"""`expertmesh plan`."""
