"""In which encoding a page is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.charset import decode

CHINESE = "\u4e2d\u6587\u5927\u5b57"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (CHINESE.encode(), ""),
        (CHINESE.encode("gbk"), "text/html; charset=GBK"),
        (CHINESE.encode("gb18030"), 'text/html; charset="gb2312"'),
        (CHINESE.encode("big5"), "text/html;charset=big5"),
        (CHINESE.encode("utf-8-sig"), "text/html; charset=gbk"),
        (b"\xff\xfe" + CHINESE.encode("utf-16-le"), ""),
        (CHINESE.encode(), "text/html; charset=no-such"),
        (CHINESE.encode(), "text/html; charset=punycode"),
        (CHINESE.encode(), "text/html; charset=rot13"),
    ],
)
def test_a_page_is_read_as_it_says(body: bytes, content_type: str) -> None:
    assert decode(body, content_type) == CHINESE


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("gbk", "gbk"), ("shift_jis", "shift_jis"), ("utf-8", "utf-8"), ("utf-16", "utf-8")],
)
def test_a_pages_own_word_counts_without_a_header(charset: str, codec: str) -> None:
    html = f'<html><meta charset="{charset}">\u65e5\u672c'
    assert decode(html.encode(codec), "text/html") == html


def test_western_bytes_without_a_word_are_read_as_windows_does() -> None:
    assert decode(b"caf\xe9 \x80") == "caf\u00e9 \u20ac"
    assert decode(b"\x80", "text/html; charset=iso-8859-1") == "\u20ac"


@given(st.binary(max_size=300), st.text(max_size=60))
def test_any_bytes_under_any_name_are_text(body: bytes, name: str) -> None:
    decode(body, f"text/html; charset={name}")
