"""API keys from flags and files: which are accepted, how they change, and what is logged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api_keys import check_key, read_keys
from gateway.config import GatewayConfig
from gateway.http.auth import ApiKeys

FIRST, SECOND = "the-first-good-key", "the-second-good-key"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the tests\n\n  {FIRST}  \r\n{SECOND}\n# end\n")
    return path


def config(tmp_path, **flags) -> GatewayConfig:
    return GatewayConfig(model=tmp_path, router="127.0.0.1:1", **flags)


def accepted(keys: ApiKeys, key: str) -> bool:
    return keys.key_id([b"Bearer " + key.encode()]) is not None


def test_a_file_holds_a_key_a_line_and_comments(file):
    assert read_keys(file) == (FIRST, SECOND)


def test_keys_come_and_go_with_the_file_and_those_of_flags_stay(tmp_path, file):
    made = config(tmp_path, api_key=("the-key-of-the-flag",), api_key_file=file)
    keys = ApiKeys(made.api_key, made.key_file)
    assert all(accepted(keys, key) for key in (FIRST, SECOND, "the-key-of-the-flag"))
    file.write_text(f"{SECOND}\nthe-third-good-key\n")
    assert not accepted(keys, FIRST)
    assert all(accepted(keys, key) for key in (SECOND, "the-third-good-key", "the-key-of-the-flag"))


@pytest.mark.parametrize("content", ["", "# none\n", "short\n", None])
def test_a_bad_new_file_neither_opens_the_gateway_nor_closes_it(tmp_path, file, content):
    keys = ApiKeys((), config(tmp_path, api_key_file=file).key_file)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert keys.required
    assert accepted(keys, FIRST)
    assert not accepted(keys, "anything-else")
    assert keys.key_id([]) is None


def test_a_name_of_a_key_is_the_same_from_a_file_and_from_a_flag(tmp_path, file):
    header = [b"Bearer " + FIRST.encode()]
    of_file = ApiKeys((), config(tmp_path, api_key_file=file).key_file)
    assert of_file.key_id(header) == ApiKeys((FIRST,)).key_id(header)


@pytest.mark.parametrize(
    "key",
    [
        *("change-this-key", "CHANGE_ME", "changeme", "your-api-key", "sk-your-key"),
        *("xxxxxxxx", "--------", "some-long-secret", "12345678"),
    ],
)
def test_keys_that_examples_have_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match=r"--api-key: (this key is a placeholder|at least 8)"):
        config(tmp_path, api_key=(key,))
    path = tmp_path / "keys"
    path.write_text(f"{FIRST}\n{key}\n")
    with pytest.raises(ValueError, match="line 2: "):
        config(tmp_path, api_key_file=path)


LINES = st.binary(max_size=30) | st.text("abcXYZ059-_ #\t\x1f\x7f", max_size=30).map(str.encode)


@given(st.lists(LINES, max_size=4).map(b"\n".join))
def test_no_bytes_make_a_key_that_a_flag_could_not_be(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "some-keys"
    path.write_bytes(content)
    try:
        keys = read_keys(path)
    except ValueError:
        return
    for key in keys:
        check_key(key, "--api-key")


def test_an_error_names_the_line_and_not_the_key(tmp_path):
    path = tmp_path / "keys"
    path.write_text("a secret with spaces\n")
    with pytest.raises(ValueError, match="line 1") as raised:
        read_keys(path)
    assert "secret" not in str(raised.value)


def test_a_file_serves_beyond_loopback_as_a_key_does(tmp_path, file):
    flags = {"listen": "0.0.0.0:8000", "insecure": True}
    config(tmp_path, api_key_file=file, **flags)
    with pytest.raises(ValueError, match="needs --api-key-file"):
        config(tmp_path, **flags)


def test_a_key_on_the_command_line_is_warned_of_and_in_the_environment_not(
    tmp_path, capsys, monkeypatch
):
    from rpc.process.flags import parse_config

    flags = ["--model", str(tmp_path), "--router", "127.0.0.1:1"]
    parse_config(GatewayConfig, [*flags, f"--api-key={FIRST}"], prog="gateway", description="")
    told = capsys.readouterr().err
    assert "every user of this machine can read --api-key" in told
    assert "--api-key-file or EXPERTMESH_API_KEY" in told
    assert FIRST not in told
    environ = {"EXPERTMESH_API_KEY": FIRST}
    parse_config(GatewayConfig, flags, prog="gateway", description="", environ=environ)
    assert not capsys.readouterr().err
