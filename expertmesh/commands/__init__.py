"""One file or folder per command group; each registers itself on the app in `expertmesh/cli.py`."""
