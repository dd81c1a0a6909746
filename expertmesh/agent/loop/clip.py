"""How does a long text fit into the context? Head and tail stay, the middle is counted."""

MAX_BYTES = 8 * 1024
_LINE_SEARCH = 200
"""A cut moves back by at most this much to be at the end of a line."""


def clipped(text: str, max_bytes: int = MAX_BYTES, *, full_text: str = "") -> str:
    """At most `max_bytes` of UTF-8 of the text, besides the line that says what is left out.

    `full_text`: where all of it can be read.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= max_bytes:
        return text
    half = max_bytes // 2
    head = data[:half].decode("utf-8", "ignore")
    tail = data[len(data) - half :].decode("utf-8", "ignore")
    line_end = head.rfind("\n", max(0, len(head) - _LINE_SEARCH)) + 1
    head = head[:line_end] if line_end else head
    line_start = tail.find("\n", 0, _LINE_SEARCH) + 1
    tail = tail[line_start:]
    left_out = text[len(head) : len(text) - len(tail)]
    where = f"; all of it: {full_text}" if full_text else ""
    note = f"[... {len(left_out):,} characters left out{where} ...]"
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{note}\n{tail}"
