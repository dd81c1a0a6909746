"""How much may a grammar cost? Compiling is bounded by a process, each step by llguidance."""

from llguidance import LLParserLimits

CHECK_CPU_S = 2
"""Processor time of one check, in which the grammar is compiled; then the kernel ends it."""
COMPILE_CPU_S = 1.0
"""Processor time of the check up to which the service compiles the grammar as well."""
CHECK_TIMEOUT_S = 30.0
"""Time limit of one check, when cores are busy: the request may be sent again later."""
CHECK_MEMORY_BYTES = 1024**3
"""Address space of the checking process."""
COMPILE_SLOTS = 2
"""Grammars compiled at once; one client gets at most all but one of the slots."""
MAX_WAITING = 256
"""Requests that may wait for grammars to be compiled."""
MASK_THREADS = 2
"""Threads for grammars of running sequences; one client gets at most all but one."""
MASK_TIMEOUT_S = 30.0
"""Longest wait of a sequence for its grammar to say what may come next."""
CACHED_GRAMMARS = 32
CACHED_BYTES = 4 * 1024**2
"""Text of all grammars in the cache."""
REMEMBERED_REFUSALS = 4096
"""Refused grammars, by digest, each with a reason of a few hundred characters."""


def parser_limits() -> LLParserLimits:
    """Of a grammar and of each of its steps, which take tens of microseconds, at most
    tens of milliseconds."""
    return LLParserLimits(
        max_items_in_row=1_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=500_000,
        step_max_items=250_000,
        max_lexer_states=20_000,  # one or two KB each
        max_grammar_size=200_000,
        verbose_errors=False,
    )
