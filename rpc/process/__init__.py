"""What every service's process does: flags, log, ports, a clean end."""
