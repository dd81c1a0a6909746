"""Offline use: `LLM`, in this process or with a running cluster."""
