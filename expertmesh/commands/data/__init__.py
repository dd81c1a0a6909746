"""`expertmesh data`."""
