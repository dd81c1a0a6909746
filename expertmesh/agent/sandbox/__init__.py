"""Run commands of a model without letting them out of the work folder, or refuse to."""
