"""How is a request tied to others of its conversation?"""

import pytest

from gateway.http.requests import SESSION_HEADERS, session_of


def test_a_session_is_the_first_hint_that_is_a_text() -> None:
    assert session_of({}, None, 5, "", ["x"]) == ""
    assert session_of({}, None, "x", "y") == session_of({}, "x") != session_of({}, "y")
    assert len(session_of({}, "x" * 2**20)) == len(session_of({}, "x")) == 64


@pytest.mark.parametrize("header", SESSION_HEADERS)
def test_a_header_names_the_session_before_an_apis_own_fields(header: str) -> None:
    assert session_of({header: "x"}, "y") == session_of({}, "x")
    assert session_of({header: ""}, "y") == session_of({}, "y")
