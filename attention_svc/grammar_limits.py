"""How much may a grammar cost? Compiling is bounded by a process of its own, each step by fuel."""

from llguidance import LLParserLimits

MAX_GRAMMAR_BYTES = 512 * 1024
CHECK_CPU_S = 1
"""Processor time of one check; the kernel counts whole seconds."""
CHECK_TIMEOUT_S = 5.0
"""Time of one check on a machine whose cores are busy."""
CHECK_MEMORY_BYTES = 1024**3
"""Address space of the checking process."""
MAX_WAITING = 64
"""Requests that may wait for grammars to be compiled."""
CACHED_GRAMMARS = 32
CACHED_BYTES = 4 * 1024**2
"""Text of all grammars in the cache."""


def parser_limits() -> LLParserLimits:
    """Of a grammar, and of each of its steps: tens of microseconds as a rule, tens of milliseconds at most."""
    return LLParserLimits(
        max_items_in_row=1_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=500_000,
        step_max_items=250_000,
        max_lexer_states=20_000,  # one or two KB each
        max_grammar_size=200_000,
        verbose_errors=False,
    )
