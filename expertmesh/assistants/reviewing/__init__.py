"""Code is shown to a model, and what it finds there becomes data."""
