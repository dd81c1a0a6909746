"""What members of a mesh share: sets of pieces, the lease, the topology watcher."""
