"""What every service's process needs: flags, logging, ports, a clean shutdown."""
