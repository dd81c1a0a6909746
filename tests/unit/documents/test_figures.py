"""Figures in the documents are those of the code: defaults, limits, formats, ports, trials."""

import re
from functools import cache
from typing import Any

import pytest
import yaml

from attention_svc.metrics import MAX_PIECE_LABELS
from bench.faults.rows import ROWS
from expertmesh.cluster.service_flags import CONFIGS
from expertmesh.offline.over_http import DEFAULT_PARALLEL
from gateway.generate.stream import MAX_MIGRATIONS
from gateway.limits import Limits
from moe_model.families.known import load_config
from moe_model.families.minimax_m2.call_arguments import MAX_TYPED_VALUE_CHARS
from moe_model.families.minimax_m2.value_end import MAX_HELD_CHARS
from moe_model.formats import FORMATS
from rpc.access.guard import DEFAULT_BOUNDS
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR, SERVER_OPTIONS
from rpc.fair_shares import SHARE
from rpc.process.flags import flags_of
from rpc.process.server import MAX_CONNECTIONS
from tests.support.documents import pages
from tests.support.places import DEMO_MODEL, ROOT

PAGES = pages()
LIMITS, OPTIONS = Limits(), dict(SERVER_OPTIONS)
NUMBER = r"([\d,]*\d(?:\.\d+)?)"
WORDS = {"two": 2, "twice": 2, "five": 5}


def page(name: str) -> str:
    """Its text, in which a line break is a blank."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))


def value(text: str) -> float:
    return WORDS.get(text) or float(text.replace(",", ""))


@cache
def defaults() -> dict[str, set[Any]]:
    """Flag -> its defaults, of the services that have it."""
    found: dict[str, set[Any]] = {}
    for config in CONFIGS.values():
        for one in flags_of(config):
            found.setdefault(one.option, set()).add(one.default)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_number_in_brackets_behind_a_flag_is_its_default(name: str) -> None:
    for flag, number in re.findall(rf"`(--[a-z-]+)` \({NUMBER}(?: s)?\)", page(name)):
        assert value(number) in defaults()[flag], flag


FIGURES = [
    ("docs/architecture.md", rf"{NUMBER} layers", 62),
    ("docs/decisions.md", rf"gets {NUMBER} s for its body", LIMITS.linger_s),
    ("docs/decisions.md", rf"Probes keep {NUMBER} places", LIMITS.probe_connections),
    ("docs/metrics.md", rf"\(up to {NUMBER} pieces\)", MAX_PIECE_LABELS),
    ("docs/metrics.md", rf"beyond {NUMBER} pieces", MAX_PIECE_LABELS),
    ("docs/offline.md", rf"`logprobs` 0 to {NUMBER}", LIMITS.top_logprobs),
    ("docs/offline.md", rf"at most {NUMBER} requests are open", DEFAULT_PARALLEL),
    ("docs/sampling.md", rf"at most {NUMBER} numbers a request", LIMITS.prompt_logprobs),
    ("docs/sampling.md", rf"at most {NUMBER} KiB and", LIMITS.schema_bytes / 1024),
    ("docs/sampling.md", rf"KiB and {NUMBER} levels", LIMITS.schema_depth),
    ("docs/several-machines.md", rf"A gateway takes {NUMBER} connections", LIMITS.max_connections),
    ("docs/several-machines.md", rf"gRPC ports take {NUMBER} connections", MAX_CONNECTIONS),
    ("docs/several-machines.md", rf"{NUMBER} s for a handshake",
     OPTIONS["grpc.server_handshake_timeout_ms"] / 1000),
    ("docs/several-machines.md", rf"{NUMBER} calls at once", DEFAULT_BOUNDS.per_connection),
    ("docs/several-machines.md", r"without a call after (five) minutes",
     OPTIONS["grpc.max_connection_idle_ms"] / 60_000),
    ("docs/tool-calls.md", rf"up to {NUMBER} characters", MAX_HELD_CHARS),
    ("docs/decisions.md", rf"hold back {NUMBER} characters", MAX_HELD_CHARS),
    ("docs/tool-calls.md", rf"A value of over {NUMBER} MiB", MAX_TYPED_VALUE_CHARS / 2**20),
    ("docs/upgrading.md", r"at most (twice)", MAX_MIGRATIONS),
    ("docs/limits.md", rf"all threads but one; {NUMBER}/8 of the queue", SHARE),
    ("docs/clients.md", rf"`early_error_wait_s` \({NUMBER} s", LIMITS.early_error_wait_s),
    ("gateway/README.md", rf"after {NUMBER} s if nothing has come", LIMITS.early_error_wait_s),
    ("gateway/README.md", rf"leaves it {NUMBER} connections", LIMITS.max_connections_per_address),
    ("gateway/README.md", r"at most (twice)", MAX_MIGRATIONS),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "figure"), FIGURES)
def test_a_figure_is_the_codes(name: str, words: str, figure: float) -> None:
    found = re.findall(words, page(name))
    assert found, f"{name} no longer says {words!r}: change this list with it"
    assert {value(one) for one in found} == {figure}


def test_the_default_ports_are_the_services() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    told = {name: set(re.findall(r"\b\d{4,5}\b", ports)) for name, ports in rows if name in CONFIGS}
    assert told == {
        name: {
            one.default.rpartition(":")[2]
            for one in flags_of(config)
            if one.name in ("listen", "ops_listen")
        }
        for name, config in CONFIGS.items()
    }


def test_a_formats_bytes_are_the_tables() -> None:
    rows = re.findall(
        rf"^\| `(\w+)` \| {NUMBER} \|", (ROOT / "docs/weight-formats.md").read_text(), re.MULTILINE
    )
    assert {name: float(size) for name, size in rows} == {
        name: round(one.group_bytes / (one.panel * one.group), 2) for name, one in FORMATS.items()
    }


def test_the_fault_table_has_the_rows_and_trials_of_the_bench() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\|[^|]*\| (\d+) \|",
        (ROOT / "docs/faults.md").read_text(),
        re.MULTILINE,
    )
    assert {name: int(trials) for name, trials in rows} == {
        name: row.trials for name, row in ROWS.items()
    }


def test_the_variables_of_the_compose_file_are_in_its_table() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    yaml.safe_load(text)
    used = dict(re.findall(r"\$\{(\w+):[-?]([^}]*)\}", text))
    table = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z_]+`.*?) \| (.*?) \|", table, re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(told) == set(used)
    for name, default in used.items():
        words = re.split(r"[/:]", default)[-1]
        if re.search(r"\d", words) and " " not in words:  # else the table says it in words
            assert words in told[name], (name, default)


def test_the_demonstration_model_is_as_told() -> None:
    config = load_config(DEMO_MODEL)
    text = page("demo_model/README.md")
    assert f"{config.num_layers} layers, {config.num_experts} experts" in text
    assert f"top-{config.top_k} per layer, hidden size {config.hidden_size}" in text
    assert f"query width {config.query_size}, {config.num_kv_heads} KV heads" in text
    assert f"context {config.max_position_embeddings:,}" in text


def test_the_protocol_is_the_changelogs() -> None:
    assert f"Protocol {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}." in page("CHANGELOG.md")
