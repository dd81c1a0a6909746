"""When is a service of the local cluster ready, and where is it?"""

from pathlib import Path

import httpx
import pytest

from expertmesh.cluster import process as process_module
from expertmesh.cluster.process import ServiceProcess
from expertmesh.cluster.spec import ServiceSpec

LOADING = "INFO attention loading, listening ops=127.0.0.1:9\n"
SERVING = "INFO attention a: serving, listening grpc=127.0.0.1:8 ops=127.0.0.1:9\n"


@pytest.fixture
def service(tmp_path: Path) -> ServiceProcess:
    spec = ServiceSpec(name="attention", module="attention_svc", stage=1)
    made = ServiceProcess(spec, tmp_path / "attention.log")
    made.log_path.write_text(LOADING)
    return made


def ask(service: ServiceProcess) -> tuple[bool, str]:
    with httpx.Client() as client:
        return service.readiness(client)


def test_it_is_asked_while_it_loads(
    service: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def answer(where: str | None, *_: object) -> tuple[bool, str]:
        asked.append(where)
        return False, "loading, 3 %"

    monkeypatch.setattr(process_module, "ask_readiness", answer)
    assert ask(service) == (False, "loading, 3 %")
    assert asked == ["127.0.0.1:9"]


def test_one_that_became_ready_while_it_was_asked_has_all_its_addresses(
    service: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> tuple[bool, str]:
        service.log_path.write_text(LOADING + SERVING)
        return True, ""

    monkeypatch.setattr(process_module, "ask_readiness", answer)
    assert ask(service) == (True, "")
    assert service.addresses == {"grpc": "127.0.0.1:8", "ops": "127.0.0.1:9"}


def test_nobody_is_sent_to_a_service_that_has_not_said_where(
    service: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "ask_readiness", lambda *_: (True, ""))
    assert ask(service)[0] is False


def test_a_service_that_dies_while_it_loads_again_keeps_its_address(
    service: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others know it, so it binds the same one at its next start."""
    monkeypatch.setattr(process_module, "ask_readiness", lambda *_: (False, "loading"))
    started: list[list[str]] = []

    class Popen:
        def __init__(self, argv: list[str], **_: object):
            started.append(argv)

    monkeypatch.setattr(process_module.subprocess, "Popen", Popen)
    service.start({})
    service.log_path.write_text(SERVING)
    ask(service)
    service.start({}, same_address=True)
    with service.log_path.open("a") as log:
        log.write(LOADING)
    ask(service)
    service.start({}, same_address=True)
    assert [argv[-2:] for argv in started[1:]] == [["--listen", "127.0.0.1:8"]] * 2
