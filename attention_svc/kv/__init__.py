"""The KV cache: its blocks, their layout, and attention over them."""
