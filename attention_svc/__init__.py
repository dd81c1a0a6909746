"""Owns sequences: scheduler, KV cache, layer loop, expert client, sampler."""
