"""Grammars that a sequence's output must follow."""
