"""Print the main text of the HTML on stdin, by trafilatura. Run as a script, with the page's URL.

A process of its own: trafilatura can take minutes for a hostile page, and parses it in C.
"""

import resource
import sys

CPU_S = 10
MEMORY_BYTES = 1 << 30


def main() -> None:
    """Writes nothing where trafilatura finds no text."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import trafilatura

    html = sys.stdin.buffer.read().decode("utf-8", "replace")
    text = trafilatura.extract(
        html, url=sys.argv[1], output_format="markdown", include_links=True, include_tables=True
    )
    sys.stdout.buffer.write((text or "").encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
