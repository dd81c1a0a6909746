"""Grammars that output must follow."""
