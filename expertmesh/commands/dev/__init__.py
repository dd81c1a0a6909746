"""`expertmesh dev`."""
