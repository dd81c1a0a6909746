"""Choices become sequences on attention services, whatever happens to those."""
