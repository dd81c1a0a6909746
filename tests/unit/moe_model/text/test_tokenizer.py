"""Encoding never yields a control token from text; decoding is exact, also piece by piece."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.text.segments import Segment
from moe_model.text.tokenizer import Tokenizer
from tests.support.examples import examples
from tests.support.moe_model.chat.samples import MARKERS, SPECIAL_MARKERS

FIXTURE_OK = examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
marker_soup = st.lists(
    st.sampled_from([*MARKERS, "<thi", "nk>", "]~", "b]", "[e", "~[", "<", " ", "a1", "é", "🙂"])
    | st.text(max_size=5),
    max_size=12,
).map("".join)


@FIXTURE_OK
@given(text=marker_soup)
def test_text_never_encodes_to_an_added_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert not set(ids) & set(tokenizer.marker_ids.values())
    assert tokenizer.decode(ids) == text


def test_markers_of_segments_become_their_ids(tokenizer: Tokenizer) -> None:
    segments = [Segment("]~b]", True), Segment("user\n]~b]", False), Segment("[e~[", True)]
    ids = tokenizer.encode_segments(segments)
    assert ids[0] == tokenizer.marker_ids["]~b]"]
    assert ids[-1] == tokenizer.marker_ids["[e~["]
    assert not set(ids[1:-1]) & set(tokenizer.marker_ids.values())
    assert tokenizer.decode(ids) == "]~b]user\n]~b][e~["


def test_an_unknown_marker_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="not an added token"):
        tokenizer.encode_segments([Segment("<|im_start|>", True)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ids_equal_the_ordinary_tokenizer(checkpoint: Path, tokenizer: Tokenizer) -> None:
    from transformers import PreTrainedTokenizerFast

    ordinary = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
    texts = [
        "plain words, 12345 and 3.14!\n\n  indented\ttabs ",
        "你好,世界 ünïcödé 🙂🙃 \u0301 mixed العربية",
        "a < b > c ] ~ b ] [ e ~ [ <invoke name='x'> thinking",
        "",
    ]
    for text in texts:
        assert tokenizer.encode_text(text) == ordinary.encode(text, add_special_tokens=False)
    whole = "]~b]user\n" + texts[1] + "[e~[\n]~b]ai\n<think>\n"
    segments = [
        Segment("]~b]", True),
        Segment("user\n" + texts[1], False),
        Segment("[e~[", True),
        Segment("\n", False),
        Segment("]~b]", True),
        Segment("ai\n", False),
        Segment("<think>", True),
        Segment("\n", False),
    ]
    assert tokenizer.encode_segments(segments) == ordinary.encode(whole, add_special_tokens=False)


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode_text("90817263")) == 8


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        tokenizer.encode_text("a\ud800b")


@FIXTURE_OK
@given(data=st.data())
def test_incremental_decoding_equals_decoding_at_once(tokenizer: Tokenizer, data) -> None:
    ids = data.draw(
        st.lists(st.integers(min_value=-2, max_value=tokenizer.vocab_size + 2), max_size=40)
    )
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.push(token_id) for token_id in ids]
    pieces.append(detokenizer.finish())
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    for piece in pieces:
        piece.encode("utf-8")


def test_no_piece_of_a_character_is_shown_early(tokenizer: Tokenizer) -> None:
    ids = [i for byte in "🦀".encode() for i in _byte_ids(tokenizer, byte)]
    detokenizer = tokenizer.detokenizer()
    assert [detokenizer.push(i) for i in ids] == ["", "", "", "🦀"]
    detokenizer.push(ids[0])
    assert detokenizer.finish() == "\ufffd"


def test_invalid_bytes_become_replacement_characters(tokenizer: Tokenizer) -> None:
    ids = [*_byte_ids(tokenizer, 0xFF), *_byte_ids(tokenizer, 0x41), *_byte_ids(tokenizer, 0xC3)]
    assert tokenizer.decode(ids) == "\ufffdA\ufffd"


def test_role_markers_are_skipped_and_tags_kept(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.marker_ids[marker] for marker in MARKERS]
    tags = "".join(marker for marker in MARKERS if marker not in SPECIAL_MARKERS)
    detokenizer = tokenizer.detokenizer()
    assert "".join(map(detokenizer.push, ids)) == tags
    assert tokenizer.decode(ids, skip_special_tokens=True) == tags
    assert tokenizer.decode(ids) == "".join(MARKERS)


def test_ids_without_entry_are_known_as_such(tokenizer: Tokenizer) -> None:
    present = [i for i in range(tokenizer.vocab_size) if tokenizer.has_token(i)]
    assert present[-1] == tokenizer.vocab_size - 1
    assert not tokenizer.has_token(-1)
    assert not tokenizer.has_token(tokenizer.vocab_size)
    if max(tokenizer.marker_ids.values()) >= 1000:
        assert not tokenizer.has_token(1001)
        assert tokenizer.decode([1001]) == ""


def test_decoding_equals_the_library(checkpoint: Path, tokenizer: Tokenizer) -> None:
    import tokenizers

    library = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = [*range(0, tokenizer.vocab_size, 3), *range(tokenizer.vocab_size - 1, 0, -2)]
    for skip in (False, True):
        expected = library.decode(ids, skip_special_tokens=skip)
        assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


def _byte_ids(tokenizer: Tokenizer, byte: int) -> list[int]:
    found = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte])]
    assert len(found) == 1
    return found
