"""The command line and the local cluster: the only place that composes services."""
