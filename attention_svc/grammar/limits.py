"""How much may a grammar cost? Compiling is bounded by a process of its own, each step by fuel."""

from llguidance import LLParserLimits

CHECK_CPU_S = 2
"""Processor time of one check, in which it is compiled; the kernel then ends the process."""
COMPILE_CPU_S = 1.0
"""What compiling may have taken there, because it is done again in the service."""
CHECK_TIMEOUT_S = 30.0
"""Time of one check on a machine whose cores are busy: whoever comes later may try again."""
CHECK_MEMORY_BYTES = 1024**3
"""Address space of the checking process."""
COMPILE_SLOTS = 2
"""Grammars compiled at once; one client has all but one of them at most."""
MAX_WAITING = 256
"""Requests that may wait for grammars to be compiled."""
MASK_THREADS = 2
"""Grammars of running sequences at work at once; one client has all but one of them at most."""
MASK_TIMEOUT_S = 30.0
"""What a sequence waits at most for its grammar to say what may come next."""
CACHED_GRAMMARS = 32
CACHED_BYTES = 4 * 1024**2
"""Text of all grammars in the cache."""
REMEMBERED_REFUSALS = 4096
"""Grammars that were refused, by digest, each with its reason of a few hundred characters."""


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
