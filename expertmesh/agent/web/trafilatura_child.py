"""Print the main text of the HTML on stdin, by trafilatura. Run as a script, with the page's URL.

A process of its own: trafilatura can take minutes for a hostile page, and parses it in C. Started
by root, it becomes nobody before it reads a byte of the page.
"""

import os
import resource
import sys

from expertmesh.agent.sandbox.folders.identity import NOBODY, become

CPU_S = 10
MEMORY_BYTES = 1 << 30
_WARM_UP = "<html><body><p>Some text.</p></body></html>"
"""What is imported late must be there before: nobody may not be able to read it."""


def main() -> None:
    """Writes nothing where trafilatura finds no text."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from trafilatura import extract

    def text_of(html: str) -> str:
        found = extract(
            html,
            url=sys.argv[1],
            output_format="markdown",
            include_links=True,
            include_tables=True,
        )
        return str(found or "")

    if os.geteuid() == 0:
        text_of(_WARM_UP)
        become(NOBODY)
    html = sys.stdin.buffer.read().decode("utf-8", "replace")
    sys.stdout.buffer.write(text_of(html).encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
