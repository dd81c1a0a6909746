"""The local cluster: how it is planned, started, watched, found again and stopped."""
