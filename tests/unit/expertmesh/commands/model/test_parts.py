"""Parts of a checkpoint: split from a folder, or pulled by byte range from a server."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from expertmesh.cli import app
from expertmesh.hub import HubSource
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import (
    ensure_manifest,
    piece_digest,
    save_manifest,
    verify_attention,
)
from moe_model.weights.packed_checkpoint import PackedCheckpoint

REPO = "someone/some-model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "whole"
    write_tiny(folder, seed=4, fp8=True, shards=3)
    (folder / "tokenizer.json").write_text("{}")
    save_manifest(ensure_manifest(Checkpoint.open(folder)), folder / "expertmesh_manifest.json")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["model", *map(str, arguments)])


def assert_part_of(whole: Path, part: Path, pieces: set[tuple[int, int]]) -> None:
    """A pool can open it, offers exactly `pieces`, and each is byte for byte the whole's."""
    opened, original = Checkpoint.open(part, partial=True), Checkpoint.open(whole)
    manifest = ensure_manifest(opened)
    assert manifest.checkpoint_id == ensure_manifest(original).checkpoint_id
    config = opened.config
    held = {
        (layer, expert)
        for layer in range(config.num_layers)
        for expert in range(config.num_experts)
        if opened.holds_expert(layer, expert)
    }
    assert held == pieces
    for layer, expert in sorted(held):
        assert piece_digest(opened, layer, expert) == manifest.pieces[layer][expert]


def test_split_gives_each_host_its_pieces_and_the_same_checkpoint_id(whole: Path, tmp_path: Path):
    config = Checkpoint.open(whole).config
    flags = ("--host", "east:400MiB", "--host", "west:400MiB", "--json")
    done = run("split", whole, "--out", tmp_path, *flags)
    assert done.exit_code == 0, done.output
    held: dict[str, set[tuple[int, int]]] = {}
    for name in ("east", "west"):
        opened = Checkpoint.open(tmp_path / name, partial=True)
        held[name] = {
            (layer, expert)
            for layer in range(config.num_layers)
            for expert in range(config.num_experts)
            if opened.holds_expert(layer, expert)
        }
        assert_part_of(whole, tmp_path / name, held[name])
    assert held["east"]
    assert held["west"]
    assert not held["east"] & held["west"]
    assert len(held["east"] | held["west"]) == config.num_pieces
    attention = Checkpoint.open(tmp_path / "attention", partial=True)
    verify_attention(attention, ensure_manifest(attention))
    assert (tmp_path / "attention" / "tokenizer.json").exists()
    assert_part_of(whole, tmp_path / "attention", set())


def test_split_refuses_what_does_not_fit_before_it_writes(whole: Path, tmp_path: Path):
    done = run("split", whole, "--out", tmp_path / "parts", "--host", "small:300MiB")
    assert "are missing" in str(done.exception)
    assert not (tmp_path / "parts").exists()
    done = run("split", whole, "--out", tmp_path / "parts", "--host", "attention:1GiB")
    assert "--host" in str(done.exception)


class Hub:
    """A repository on a port of its own, with byte ranges; counts what it sent."""

    def __init__(self, folder: Path, *, ranges: bool = True):
        hub = self
        self.sent: list[tuple[str, int]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                path = folder / name
                if f"/{REPO}/resolve/" not in self.path or not path.is_file():
                    self.send_error(404)
                    return
                content, status = path.read_bytes(), 200
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                size = len(content)
                if match and ranges:
                    status, content = 206, content[int(match[1]) : int(match[2]) + 1]
                self.send_response(status)
                if status == 206:
                    end = int(match[1]) + len(content) - 1
                    self.send_header("Content-Range", f"bytes {match[1]}-{end}/{size}")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                hub.sent.append((name, len(content)))

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads HF_ENDPOINT when it is imported: set what it made of it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    running = Hub(whole)
    point_at(running.endpoint, monkeypatch)
    yield running
    running.close()


def test_pull_fetches_only_the_pieces_asked_for(
    hub: Hub, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("expertmesh.hub.FIRST_READ_BYTES", 1024)
    out = tmp_path / "east"
    done = run("pull", REPO, "--out", out, "--layers", "1-2", "--experts", "0,3", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert_part_of(whole, out, {(1, 0), (1, 3), (2, 0), (2, 3)})
    stored = sum(file.stat().st_size for file in whole.glob("*.safetensors"))
    fetched = sum(size for name, size in hub.sent if name.endswith(".safetensors"))
    assert fetched < stored / 2
    assert sum(one["bytes"] for one in json.loads(done.stdout)["folders"]) < stored / 4


def test_pull_of_the_attention_side_brings_the_tokenizer(hub: Hub, tmp_path: Path):
    assert run("pull", REPO, "--out", tmp_path, "--attention").exit_code == 0
    attention = Checkpoint.open(tmp_path, partial=True)
    verify_attention(attention, ensure_manifest(attention))
    assert (tmp_path / "tokenizer.json").exists()


def test_a_pull_that_was_cut_off_continues(hub: Hub, whole: Path, tmp_path: Path):
    assert run("pull", REPO, "--out", tmp_path, "--layers", "0").exit_code == 0
    (tmp_path / "experts-layer-0001.safetensors.unfinished").write_bytes(b"half")
    before = (tmp_path / "experts-layer-0000.safetensors").stat().st_mtime_ns
    assert run("pull", REPO, "--out", tmp_path, "--layers", "0,1").exit_code == 0
    assert (tmp_path / "experts-layer-0000.safetensors").stat().st_mtime_ns == before
    num_experts = Checkpoint.open(whole).config.num_experts
    assert_part_of(whole, tmp_path, {(layer, e) for layer in (0, 1) for e in range(num_experts)})


def test_other_experts_of_a_layer_that_is_there_are_fetched_too(
    hub: Hub, whole: Path, tmp_path: Path
):
    flags = ("pull", REPO, "--out", tmp_path, "--layers", "0", "--experts")
    assert run(*flags, "0-1").exit_code == 0
    assert run(*flags, "1-3").exit_code == 0
    assert_part_of(whole, tmp_path, {(0, 1), (0, 2), (0, 3)})


@pytest.mark.parametrize("name", ["someone/other", "no such name"])
def test_an_unknown_repository_is_one_clear_line(hub: Hub, tmp_path: Path, name: str):
    done = run("pull", name, "--out", tmp_path)
    assert done.exception.exit_code == 1
    assert name in str(done.exception)
    assert "\n" not in str(done.exception)


def test_no_network_and_no_ranges_are_one_clear_line(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    point_at("http://127.0.0.1:9", monkeypatch)
    done = run("pull", REPO, "--out", tmp_path)
    assert str(done.exception).startswith(f"cannot fetch {REPO}/model.safetensors.index.json: ")
    assert "\n" not in str(done.exception)
    plain = Hub(whole, ranges=False)
    try:
        point_at(plain.endpoint, monkeypatch)
        with pytest.raises(ValueError, match="does not support byte ranges"):
            HubSource(REPO).find("lm_head.weight")
    finally:
        plain.close()


def test_a_part_is_quantised_and_stays_the_same_model(whole: Path, tmp_path: Path) -> None:
    config = Checkpoint.open(whole).config
    run("split", whole, "--out", tmp_path, "--pools", "2", "--memory", "1GiB")
    part = next(path for path in sorted(tmp_path.iterdir()) if path.name != "attention")
    done = run("quantise", part, tmp_path / "packed", "--format", "int4", "--json")
    assert done.exit_code == 0, done.output
    packed = PackedCheckpoint(tmp_path / "packed")
    assert json.loads(done.stdout)["checkpoint_id"] == packed.manifest.checkpoint_id
    assert packed.manifest.checkpoint_id == ensure_manifest(Checkpoint.open(whole)).checkpoint_id
    original, held = Checkpoint.open(part, partial=True), 0
    for layer_idx in range(config.num_layers):
        for expert_id in range(config.num_experts):
            here = packed.holds_expert(layer_idx, expert_id)
            assert here == original.holds_expert(layer_idx, expert_id)
            held += here
    assert 0 < held < config.num_pieces
    assert not packed.holds_attention
    again = run("quantise", part, tmp_path / "packed", "--format", "int4")
    assert "finished packed weights already" in str(again.exception)
    wrong = run("quantise", part, tmp_path / "other", "--format", "int3")
    assert "--format must be one of bf16, fp8, int8, int4" in str(wrong.exception)
