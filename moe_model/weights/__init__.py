"""Weights on disk and how they are held."""
