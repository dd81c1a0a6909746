"""Offline use: `LLM` in this process or over a running cluster."""
