"""Flags, their environment twins, byte sizes and addresses; mistakes are exit 2 and named."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc.config import MAX_MESSAGE_BYTES, Address, max_rows_per_message
from rpc.process.flags import flag, parse_config
from rpc.process.server import check_exposure
from rpc.process.sizes import parse_bytes


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = flag("x", "a name, 100% free")
    count: int = flag(3, "how many")
    share: float = flag(0.5, "how much")
    folder: Path | None = flag(None, "where")
    loud: bool = flag(False, "say more")
    no_color: bool = flag(False, "plain text")
    peers: tuple[str, ...] = flag((), "whom")
    inner: int = 7  # no flag

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"--count must be at least 0, got {self.count}")


def parsed(*argv: str, **environ: str) -> Config:
    return parse_config(Config, argv, prog="test", description="A test.", environ=environ)


def refused(capsys: pytest.CaptureFixture[str], *argv: str, **environ: str) -> str:
    with pytest.raises(SystemExit) as exit:
        parsed(*argv, **environ)
    assert exit.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_flags_win_over_the_environment_and_it_over_defaults():
    assert parsed() == Config()
    assert parsed(EXPERTMESH_COUNT="4").count == 4
    assert parsed("--count", "5", EXPERTMESH_COUNT="4").count == 5


def test_every_type_has_its_environment_twin():
    read = parsed(
        EXPERTMESH_NAME="n",
        EXPERTMESH_COUNT="1",
        EXPERTMESH_SHARE="0.25",
        EXPERTMESH_FOLDER="/a",
        EXPERTMESH_LOUD="Yes",
        EXPERTMESH_PEERS="a, b,,c",
        EXPERTMESH_INNER="9",
    )
    assert read == Config(
        name="n", count=1, share=0.25, folder=Path("/a"), loud=True, peers=("a", "b", "c")
    )


def test_lists_repeat_and_booleans_can_be_taken_back():
    assert list(parsed("--peers", "a", "--peers", "b").peers) == ["a", "b"]
    assert parsed("--loud").loud
    assert not parsed("--no-loud", EXPERTMESH_LOUD="1").loud
    assert not parsed(EXPERTMESH_LOUD="off").loud


def test_a_flag_that_says_no_has_no_double_negative(capsys: pytest.CaptureFixture[str]):
    assert parsed("--no-color").no_color
    assert not parsed(EXPERTMESH_NO_COLOR="0").no_color
    assert "--no-no-color" in refused(capsys, "--no-no-color")


def test_mistakes_are_exit_2_and_named(capsys: pytest.CaptureFixture[str]):
    assert "--count" in refused(capsys, "--count", "many")
    assert "--count must be at least 0" in refused(capsys, "--count", "-1")
    assert "--unknown" in refused(capsys, "--unknown", "1")
    assert "--nam" in refused(capsys, "--nam", "short for a name")
    assert "--inner" in refused(capsys, "--inner", "1")
    assert "EXPERTMESH_COUNT" in refused(capsys, EXPERTMESH_COUNT="many")
    assert "EXPERTMESH_LOUD" in refused(capsys, EXPERTMESH_LOUD="perhaps")
    assert "--count must be" in refused(capsys, EXPERTMESH_COUNT="-1")


def test_help_shows_flags_and_defaults(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        parsed("--help")
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert "--count" in shown
    assert "(default: 3)" in shown
    assert "100% free" in shown


@pytest.mark.parametrize(
    "text, size",
    [
        ("1", 1),
        ("2e9", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        ("48 GiB", 48 * 2**30),
        ("1.5kB", 1500),
        (" 3TB ", 3 * 10**12),
        ("7b", 7),
        ("1.5e3 KiB", 1536000),
        ("", None),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int | None):
    assert parse_bytes(text, "--memory") == size


@pytest.mark.parametrize(
    "text", ["lots", "-1", "1 XB", "GiB", "1,5GiB", "0", "0.1", "inf", "nan", "1e400", " "]
)
def test_other_sizes_are_refused_by_name(text: str):
    with pytest.raises(ValueError, match=r"^--memory: "):
        parse_bytes(text, "--memory")


@pytest.mark.parametrize(
    "text, host", [("a.b:1", "a.b"), ("[::1]:0", "::1"), (" 127.0.0.1:65535 ", "127.0.0.1")]
)
def test_addresses_are_read_and_written(text: str, host: str):
    address = Address.parse(text)
    assert address.host == host
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", ":1", "host:", "host:-1", "host:65536", "host:1x", "host:\u0661"),
        *("unix:/tmp/x:1", "xds:///x:1", "[::1", "[::1:2", "a b:1", "a\nb:1"),
        "host:" + "0" * 5000,
    ],
)
def test_other_addresses_are_refused_by_name(text: str):
    with pytest.raises(ValueError, match=r"^--listen: "):
        Address.parse(text, "--listen")


@pytest.mark.parametrize(
    "text", ["unix:1", "UNIX:1", "dns:53", "unix-abstract:1", "xds:1", "ipv4:1"]
)
def test_what_grpc_would_not_read_as_a_host_is_refused(text: str):
    with pytest.raises(ValueError, match=r"^--router: .*scheme"):
        Address.parse(text, "--router")


@pytest.mark.parametrize(
    "host, loopback",
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "127.evil.example")),
    ],
)
def test_plaintext_is_for_loopback_unless_allowed(host: str, loopback: bool):
    address = Address(host=host, port=1)
    assert address.is_loopback is loopback
    check_exposure(address, tls=None, insecure=True)
    if loopback:
        check_exposure(address, tls=None, insecure=False)
        return
    with pytest.raises(ValueError, match="--insecure"):
        check_exposure(address, tls=None, insecure=False)


@given(st.integers(1, 16384), st.integers(1, 64))
def test_the_most_rows_of_a_message_fit_its_limit(hidden_size: int, top_k: int):
    rows = max_rows_per_message(hidden_size, top_k)
    assert rows >= 1
    size = rows * (4 * hidden_size + 8 * top_k + 4) + 4
    assert size <= MAX_MESSAGE_BYTES
    assert size + 4 * hidden_size + 8 * top_k + 100_000 > MAX_MESSAGE_BYTES
