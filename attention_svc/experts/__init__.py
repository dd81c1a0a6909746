"""The way to the experts: transports, links to pools, calls that survive them."""
