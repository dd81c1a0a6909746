"""The registry of EXPERTMESH_* names is complete, each name has one meaning, typos are reported."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from expertmesh.cli import app
from expertmesh.cluster.service_flags import CONFIGS
from rpc.process.env_names import COMMANDS, KNOWN, OTHERS, SERVICES, nearest, unknown_names_warning
from rpc.process.flags import flags_of
from tests.support.places import ROOT

FOLDERS = [
    "attention_svc",
    "bench",
    "demo_model",
    "deploy",
    "docs",
    "examples",
    "expert_svc",
    "expertmesh",
    "gateway",
    "moe_model",
    "router_svc",
    "rpc",
    "tests",
]
SOURCES = (".py", ".md", ".yaml", ".yml", ".toml", ".c", ".cpp", ".h", ".Dockerfile")
INVENTED = re.compile(
    "NAME|COUNT|SHARE|FOLDER|LOUD|PEERS|INNER|NO_COLOR|SOME_FLAG|PORT|NUM_THREADS"
)
"""Names made up by tests and examples about names."""


def repository_files() -> Iterator[Path]:
    """Files in which names may occur, except this one with its wrong names."""
    yield from (ROOT / "Makefile", ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    yield ROOT / "deploy" / "Dockerfile"
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SOURCES and path != Path(__file__).resolve():
                yield path


def command_options() -> list[tuple[str, str, str]]:
    """(command, option, name without prefix) of every option with a twin."""
    found = []

    def walk(command, path: str) -> None:
        for name, one in getattr(command, "commands", {}).items():
            walk(one, f"{path} {name}".strip())
        for option in command.params:
            twin = option.envvar if isinstance(option.envvar, str) else None
            if twin is not None:
                assert twin.startswith("EXPERTMESH_"), (path, option.name)
                found.append((path, option.opts[0], twin.removeprefix("EXPERTMESH_")))

    walk(typer.main.get_command(app), "")
    return found


def service_flags() -> dict[str, list[str]]:
    """Name without prefix -> the services that have it."""
    owners: dict[str, list[str]] = defaultdict(list)
    for module, config in CONFIGS.items():
        for one in flags_of(config):
            owners[one.name.upper()].append(module)
    return owners


def test_the_registry_has_the_flags_that_there_are_and_no_other() -> None:
    services = set(service_flags())
    commands = {name for _, _, name in command_options()} - services
    missing, gone = (services | commands) - KNOWN, (SERVICES | COMMANDS) - services - commands
    assert not missing, f"add to rpc/process/env_names.py: {' '.join(sorted(missing))}"
    assert not gone, f"take out of rpc/process/env_names.py: {' '.join(sorted(gone))}"
    assert services == SERVICES
    assert not (SERVICES | COMMANDS) & OTHERS


def test_every_name_in_the_repository_is_known() -> None:
    unknown = defaultdict(set)
    for file in repository_files():
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"EXPERTMESH_([A-Z][A-Z0-9_]*[A-Z0-9])\b", text):
            if name not in KNOWN and not INVENTED.fullmatch(name):
                unknown[name].add(str(file))
    assert not unknown


ASSISTANTS = {
    "data analyse", "data explain", "data suggest", "dev debug", "dev refactor", "dev review",
    "dev tests",
}  # fmt: skip
CLIENTS = {"up", "chat", "agent", "connect", "bench serve"}
SAME = {
    "API_KEY": CLIENTS | ASSISTANTS,
    "API_KEY_FILE": CLIENTS | ASSISTANTS,
    "MODEL": {"up", "plan", "bench offline", "bench replay"},
    "DTYPE": {"up", "bench offline"},
    "GPU_MEMORY": {"up", "plan"},
    "KV_MEMORY": {"up", "bench offline"},
    "LOAD": {"up", "bench offline"},
    "THREADS": {"up", "bench offline"},
    "STRIPING": {"up", "plan", "model split"},
    "LAYERS": {"model pull"},
    "EXPERTS": {"model pull"},
}
"""A service's flag -> the commands that mean the same by it, besides `up` (which passes flags on)
and those that ask a router (ROUTER, TLS_*, SECRET_FILE)."""
ASK_A_ROUTER = {"ROUTER", "TLS_CA", "TLS_CERT", "TLS_KEY", "SECRET_FILE"}


def test_a_command_that_means_something_else_by_a_services_flag_has_a_name_of_its_own() -> None:
    services = service_flags()
    for command, option, name in command_options():
        if name in services and name not in ASK_A_ROUTER and command != "up":
            assert command in SAME.get(name, ()), f"{command} {option}: EXPERTMESH_{name}"


def test_options_of_one_name_mean_the_same_in_all_commands() -> None:
    """Options that share a name have one spelling, or are declared exceptions."""
    exceptions = {"PNG": {"--png"}, "MODEL_NAME": {"--model-name", "--model"}}
    spellings = defaultdict(set)
    for command, option, name in command_options():
        spellings[name].add(option)
        own = option.removeprefix("--").replace("-", "_").upper()
        prefixed = name.endswith("_" + own)
        assert name == own or prefixed or option in exceptions.get(name, ()), (command, option)
    for name, options in spellings.items():
        assert len(options) == 1 or options == exceptions.get(name), (name, options)
    once = ("UP_ATTENTION", "RECORD_ATTENTION", "PULL_ATTENTION", "DOWN_TIMEOUT", "DRAIN_TIMEOUT")
    names = [name for _, _, name in command_options()]
    assert [names.count(name) for name in once] == [1] * len(once)
    assert not {"ATTENTION", "TIMEOUT"} & set(names)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("PORT", "HTTP_PORT"),
        ("MODLE", "MODEL"),
        ("APIKEY", "API_KEY"),
        ("CORS", "CORS_ORIGIN"),
        ("TIMEOUT", "DOWN_TIMEOUT"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_S"),
    ],
)
def test_the_nearest_name_is_offered_first(wrong: str, meant: str) -> None:
    assert nearest(wrong)[0] == meant
    assert f"(did you mean EXPERTMESH_{meant}" in str(
        unknown_names_warning({f"EXPERTMESH_{wrong}": "x"})
    )


def test_known_names_and_those_of_others_are_no_matter() -> None:
    assert unknown_names_warning({f"EXPERTMESH_{name}": "" for name in KNOWN}) is None
    assert unknown_names_warning({"HOME": "/", "expertmesh_port": "1"}) is None


def test_the_warning_is_one_short_printable_line() -> None:
    hostile = {f"EXPERTMESH_{index}\x1b[2J\n{'x' * 5000}": "" for index in range(50)}
    warning = str(unknown_names_warning(hostile))
    assert warning.isprintable()
    assert len(warning) < 1000
    assert "45 more" in warning


@pytest.mark.parametrize(
    "argv",
    [
        ("expertmesh", "doctor", "--help"),
        pytest.param(("expertmesh", "status", "--json"), marks=pytest.mark.slow),
        pytest.param(("gateway",), marks=pytest.mark.slow),
        pytest.param(("attention_svc",), marks=pytest.mark.slow),
        ("router_svc", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:notaport"),
    ],
)
def test_commands_and_services_tell_of_it(argv: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(tmp_path),
            "EXPERTMESH_MODLE": "x",
            "EXPERTMESH_TEST_COMPOSE": "",
        },
    )
    told = "nothing reads EXPERTMESH_MODLE (did you mean EXPERTMESH_MODEL"
    assert done.stderr.count(told) == 1, done.stderr
    assert "TEST_COMPOSE" not in done.stderr
