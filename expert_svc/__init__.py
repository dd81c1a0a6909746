"""The expert pool: holds experts' weights and computes their FFN for Execute calls."""
