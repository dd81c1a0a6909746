"""Environments of real clients."""
