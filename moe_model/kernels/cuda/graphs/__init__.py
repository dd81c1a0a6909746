"""Work on a device as CUDA graphs: whole steps, layers between hops, calls to experts."""
