"""Tests are written, run, and tried on mistakes, in a copy of the project."""
