"""Can this grammar be compiled? Asked in a process of its own: no grammar hangs or crashes the service.

One JSON string per line on standard input, one answer per line: what is wrong, or "". The kernel ends
the process when a grammar takes too much time or memory.
"""

import json
import math
import resource
import sys
import time

from llguidance import LLMatcher

from attention_svc.grammar_limits import CHECK_CPU_S, CHECK_MEMORY_BYTES, parser_limits


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (CHECK_MEMORY_BYTES, CHECK_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        seconds = math.ceil(time.process_time()) + CHECK_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        error = LLMatcher.validate_grammar(json.loads(line), limits=parser_limits())
        sys.stdout.write(json.dumps(error) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
