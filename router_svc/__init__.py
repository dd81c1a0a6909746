"""Owns the map: membership, assignment, topology. Never imports torch."""
