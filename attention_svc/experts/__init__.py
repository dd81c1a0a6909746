"""How expert calls are made: transports, links to pools, calls that outlive a pool's failure."""
