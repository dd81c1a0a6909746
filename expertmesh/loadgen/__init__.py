"""Load on a server and what it measures: the parts of `expertmesh bench`."""
