"""How many layers and experts may a model have? Beyond any model that exists.

What claims to be larger is a damaged or hostile config or message.
"""

MAX_LAYERS = 1024
MAX_EXPERTS = 16384
"""Of one layer."""
