"""Which sampling parameters may a Generate request have? One table for both of its ends."""

RANGES = {
    "temperature": (0.0, 2.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 1e3),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them overflows."""
MAX_LOGIT_BIAS = 300
MAX_TOP_LOGPROBS = 20
MAX_ALLOWED_TOKEN_IDS = 16_384
MAX_BANNED_SEQUENCES = 2048
MAX_BANNED_TOKENS = 32_768
"""Of all banned sequences together."""
