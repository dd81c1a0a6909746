"""How is a request tied to others of its conversation?"""

from gateway.http.requests import session_of


def test_the_first_hint_that_is_text_counts_and_none_is_kept_as_it_came() -> None:
    assert session_of(None, 5, "", ["x"]) == ""
    assert session_of(None, "x", "y") == session_of("x") != session_of("y")
    assert len(session_of("x" * 2**20)) == len(session_of("x")) == 64
