"""`expertmesh agent`."""
