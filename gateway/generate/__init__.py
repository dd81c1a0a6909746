"""The core: runs the choices of a request as sequences on attention services."""
