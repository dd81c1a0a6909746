"""Owns experts: weight store and the grouped FFN behind Execute."""
