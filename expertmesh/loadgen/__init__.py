"""The parts of `expertmesh bench`: workloads, load on a server or the pools, measurements."""
