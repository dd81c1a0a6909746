"""Secrets do not reach the trace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.record.masks import MASK, Masks, secrets_of
from tests.support.examples import examples


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnopqrstuv",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "hf_abcdefghijklmnopqrstuvwx",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIabc and the file ends",
    ],
)
def test_what_looks_like_a_key_is_masked(secret: str) -> None:
    assert Masks().hide(f"a {secret}") == f"a {MASK}"


def test_passwords_in_urls_and_headers() -> None:
    assert Masks().hide("git clone https://me:pass@host/x") == f"git clone https://{MASK}@host/x"
    assert Masks().hide("Authorization: Bearer abcdefgh12") == f"Authorization: Bearer {MASK}"
    assert Masks().hide("see https://host:80/a@b") == "see https://host:80/a@b"


@pytest.mark.parametrize("text", ["desk-lamp", "sk-short", "task-force-of-many-people", "x = 1"])
def test_other_text_stays(text: str) -> None:
    assert Masks(["short"]).hide(text) == text


@examples(many=200)
@given(st.lists(st.text("abc", min_size=8, max_size=12), min_size=1, max_size=4), st.text("abc "))
def test_no_known_secret_is_left(secrets: list[str], between: str) -> None:
    text = between.join(secrets) + between
    hidden = Masks(secrets).hide(text)
    assert not any(secret in hidden for secret in secrets)


def test_a_whole_json_value_is_gone_through() -> None:
    value = {"a": ["x secret-value", 1, None], "secret-value": {"b": ("secret-value",)}}
    assert Masks(["secret-value"]).hide_in(value) == {
        "a": [f"x {MASK}", 1, None],
        MASK: {"b": [MASK]},
    }


def test_variables_with_secret_names() -> None:
    environment = {
        "EXPERTMESH_API_KEY": "a",
        "GH_TOKEN": "b",
        "db_password": "c",
        "AWS_SECRET_ACCESS_KEY": "d",
        "API_KEY_FILE": "/path",
        "KEYBOARD": "de",
        "HOME": "/root",
    }
    assert secrets_of(environment) == ["a", "b", "c", "d"]
