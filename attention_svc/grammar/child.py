"""May the service compile this grammar? It is compiled here first, in a process that can be killed.

One JSON string per line on standard input; for each, one JSON line: [what is wrong or "", seconds
of processor time]. The kernel ends the process when a grammar takes too much time or memory; when
the parent ends, so does the input. Compiling takes as long here as in the service, although only
the vocabulary's size is known here: its cost is that of the grammar's own automata.
"""

import json
import os
import resource
import sys
import time

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from attention_svc.grammar.limits import CHECK_CPU_S, CHECK_MEMORY_BYTES, parser_limits

_NICENESS = 5
"""Running sequences come first."""


class _Bytes:
    """A token for each byte, and ids without any text up to the vocabulary's size."""

    bos_token_id = None

    def __init__(self, vocab_size: int):
        size = max(vocab_size, 257)
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"\xff<end>"]
        self.tokens += [b""] * (size - len(self.tokens))
        self.eos_token_id = 256
        self.special_token_ids = [256]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def main(vocab_size: int) -> None:
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (CHECK_MEMORY_BYTES, CHECK_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    table = _Bytes(vocab_size)
    tokenizer = LLTokenizer(
        TokenizerWrapper(table),
        n_vocab=len(table.tokens),
        eos_token=[table.eos_token_id],
        slices=LLTokenizer.json_slices(),
    )
    _say("ready")
    for line in sys.stdin:
        text = json.loads(line)
        started_s = time.process_time()
        # The kernel's limit is in whole seconds since the process started.
        end_s = int(started_s) + 1 + CHECK_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (end_s, resource.RLIM_INFINITY))
        error = LLMatcher(tokenizer, text, log_level=0, limits=parser_limits()).get_error()
        _say([error, time.process_time() - started_s])


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
