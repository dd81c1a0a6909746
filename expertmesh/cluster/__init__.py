"""The local cluster: planned, started, watched, found again, stopped."""
