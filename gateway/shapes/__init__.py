"""What several APIs write or read in the same way: errors, log-probabilities, demands for JSON."""
