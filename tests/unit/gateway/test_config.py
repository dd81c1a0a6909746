"""Which flag combinations are refused?"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.config import GatewayConfig


def config(**fields: Any) -> GatewayConfig:
    fields = {"model": Path("model"), "attention": ("127.0.0.1:50051",), **fields}
    return GatewayConfig(**fields)


def test_loopback_needs_no_key() -> None:
    assert config().listen_address.port == 8000


@pytest.mark.parametrize("listen", ["0.0.0.0:8000", "[::]:8000", "10.0.0.1:80", "host.lan:8000"])
def test_an_open_address_without_a_key_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="needs --api-key"):
        config(listen=listen)
    config(listen=listen, api_key=("long-enough-key",))
    config(listen=listen, insecure_no_auth=True)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"model": None}, "--model"),
        ({"attention": (), "router": None}, "--router"),
        ({"attention": ("nowhere",)}, "--attention"),
        ({"router": "x:y"}, "--router"),
        ({"listen": "8000"}, "--listen"),
        ({"api_key": ("short",)}, "--api-key"),
        ({"api_key": ("with space here",)}, "--api-key"),
        ({"tls_ca": Path("ca.pem")}, "--tls-ca"),
        ({"log_level": "loud"}, "--log-level"),
        ({"max_concurrent": 0}, "--max-concurrent"),
        ({"request_timeout_s": -1.0}, "--request-timeout-s"),
        ({"drain_s": float("nan")}, "--drain-s"),
        ({"served_model_name": ("",)}, "--served-model-name"),
        ({"allowed_host": ("",)}, "--allowed-host"),
        ({"allowed_host": ("gpu.lan:8000",)}, "--allowed-host"),
        ({"allowed_host": ("http://gpu.lan",)}, "--allowed-host"),
        ({"attention": ("10.0.0.1:50051",)}, "plaintext"),
        ({"response_store": ""}, "--response-store"),
        ({"response_store_size": "much"}, "--response-store-size"),
        ({"response_store_size": "10KiB"}, "--response-store-size"),
        ({"response_ttl_s": 1.0}, "--response-ttl-s"),
        ({"response_store_url_file": Path("x")}, "--response-store-url-file"),
    ],
)
def test_bad_flags_are_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(**fields)


def test_the_url_of_a_database_comes_from_a_file_or_the_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="--response-store-url-file") as refused:
        config(response_store="postgresql://user:hunter2@host/db")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="EXPERTMESH_RESPONSE_STORE_URL"):
        config(response_store="postgres").response_store_url()
    monkeypatch.setenv("EXPERTMESH_RESPONSE_STORE_URL", "postgresql://one")
    assert config(response_store="postgres").response_store_url() == "postgresql://one"
    assert config().response_store_url() == ""
    file = tmp_path / "url"
    file.write_text("postgresql://two\n")
    from_file = config(response_store="postgres", response_store_url_file=file)
    assert from_file.response_store_url() == "postgresql://two"


def test_plaintext_beyond_loopback_can_be_allowed() -> None:
    config(attention=("10.0.0.1:50051",), insecure=True)


@pytest.mark.parametrize(
    "argv",
    [
        ["--no-such-flag"],
        ["--model", "x"],
        ["--model", "x", "--attention", "127.0.0.1:1", "--listen", "0.0.0.0:0"],
    ],
)
def test_bad_flags_exit_with_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.fixture
def own_signal_handlers() -> Iterator[None]:
    """A service run in this process must not leave its handlers behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signal_handlers")
def test_a_missing_model_folder_is_status_2_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = [
        "--model",
        str(tmp_path / "none"),
        "--attention",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
    ]
    assert main(argv) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith("--model")
