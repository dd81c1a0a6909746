"""Faults on purpose: docs/faults.md says which, and what is promised under each."""
