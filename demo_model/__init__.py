"""The bundled demonstration checkpoint, and the code that trained it."""
