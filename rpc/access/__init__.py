"""Which callers may use which services."""
