"""The wire of the gateway: connections, HTTP, keys, and what every request passes through."""
