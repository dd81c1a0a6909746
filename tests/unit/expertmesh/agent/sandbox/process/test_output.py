"""Of long output head and tail stay, whatever the pieces; short output stays as it is."""

from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.sandbox.process.output import KeptOutput
from tests.support.examples import examples

PIECES = st.lists(st.binary(max_size=40), max_size=20)


@given(PIECES, st.integers(2, 50))
@examples(300)
def test_head_and_tail_stay(pieces: list[bytes], size_bytes: int) -> None:
    kept, whole = KeptOutput(size_bytes), b"".join(pieces)
    for piece in pieces:
        kept.add(piece)
    if len(whole) <= size_bytes:
        assert kept.text == whole.decode("utf-8", "replace")
        assert not kept.is_clipped
        return
    half = size_bytes // 2
    head, tail = whole[:half], whole[len(whole) - (size_bytes - half) :]
    missing = len(whole) - size_bytes
    assert kept.is_clipped
    assert kept.text == (
        f"{head.decode('utf-8', 'replace')}\n[... {missing} bytes left out ...]\n"
        f"{tail.decode('utf-8', 'replace')}"
    )


@given(st.text(max_size=100), st.integers(1, 7))
@examples(200)
def test_the_listener_hears_all_in_whole_characters(text: str, step: int) -> None:
    heard: list[str] = []
    kept = KeptOutput(10, heard.append)
    data = text.encode("utf-8", "surrogatepass")
    for start in range(0, len(data), step):
        kept.add(data[start : start + step])
    kept.finish()
    assert "".join(heard) == data.decode("utf-8", "replace")


def test_a_character_that_never_ends_is_told_at_the_end() -> None:
    heard: list[str] = []
    kept = KeptOutput(10, heard.append)
    kept.add("ä".encode()[:1])
    assert heard == []
    kept.finish()
    assert heard == ["\ufffd"]


def test_memory_does_not_grow_with_the_output() -> None:
    kept = KeptOutput(1000)
    for _ in range(1000):
        kept.add(b"x" * 1000)
    assert kept.total_bytes == 1_000_000
    assert len(kept._head) + len(kept._tail) <= 2000
