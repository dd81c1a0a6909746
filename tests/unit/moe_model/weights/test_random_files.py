"""Whatever a checkpoint's files contain, reading them gives a result or a ValueError."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.text.model_files import load_model_files
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest, ensure_manifest, load_manifest, save_manifest
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from moe_model.weights.packed_checkpoint import PackedCheckpoint
from tests.support.examples import examples
from tests.support.moe_model.tiny_text_model import write_tiny_text_model

ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.5),
    *("", "x", "\x00", "é" * 99, "float32", "../../etc/passwd"),
    *([], {}, [[]], [None], {"": {}}, [0, 2**62]),
]


def edited(document: Any, choose: random.Random) -> Any:
    """The JSON value with one place in it replaced, removed or repeated."""
    if choose.random() < 0.15 or not isinstance(document, dict | list) or not document:
        return choose.choice(ODD)
    key: Any = (
        choose.choice(list(document))
        if isinstance(document, dict)
        else choose.randrange(len(document))
    )
    changed: Any = dict(document) if isinstance(document, dict) else list(document)
    kind = choose.random()
    if kind < 0.15:
        del changed[key]
    elif kind < 0.2 and isinstance(changed, dict):
        changed[f"{key}x"] = changed[key]
    else:
        changed[key] = edited(changed[key], choose)
    return changed


def damaged(data: bytes, choose: random.Random) -> bytes:
    """The bytes with some of them changed, cut out or put in, near the beginning as a rule."""
    most = len(data) if choose.random() < 0.3 else min(len(data), 4_000)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(most + 1)
        piece = bytes(
            choose.choice(b'\x00\xff{}[]",:0919e-\\u') for _ in range(choose.randint(0, 9))
        )
        data = data[:at] + piece + data[at + choose.choice([0, 1, len(piece), 100]) :]
    return data


def changed_file(path: Path, seed: int) -> None:
    """Put a changed copy in the place of a file that others share."""
    data, choose = path.read_bytes(), random.Random(seed)
    if path.suffix == ".json" and seed % 2:
        new = json.dumps(edited(json.loads(data), choose)).encode()
    elif path.suffix == ".safetensors" and seed % 2:
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(edited(json.loads(data[8 : 8 + size]), choose)).encode()
        new = len(header).to_bytes(8, "little") + header + data[8 + size :]
    else:
        new = damaged(data, choose)
    path.unlink()
    path.write_bytes(new)


def refusal_of(read: Callable[[], object]) -> str:
    """The text of its ValueError, or "" when there is none. Other exceptions fail the test."""
    try:
        read()
    except ValueError as error:
        return str(error).strip()
    return ""


def read_checkpoint(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    checkpoint.stored_expert(0, 0)


def read_packed(folder: Path) -> None:
    packed = PackedCheckpoint(folder)
    if packed.holds_expert(0, 0):
        packed.expert(0, 0)


Reader = Callable[[Path], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reader]]:
    root = tmp_path_factory.mktemp("fuzz")
    plain = write_tiny_text_model(root / "plain", fp8=True, shards=2)
    source = Checkpoint.open(plain)
    manifest = ensure_manifest(source)
    job = PackJob(source=source, manifest=manifest, format="int4", linear_format="int8")
    write_packed(job, root / "packed")
    return {
        "checkpoint": (plain, read_checkpoint),
        "text": (plain, lambda folder: load_model_files(folder, ())),
        "packed": (root / "packed", read_packed),
    }


@pytest.mark.parametrize("kind", ["checkpoint", "text", "packed"])
@examples(25)
@given(seed=st.integers(0, 2**32), pick=st.integers(0, 99))
def test_no_file_of_a_checkpoint_can_do_more_than_be_refused(
    folders: dict[str, tuple[Path, Reader]], kind: str, seed: int, pick: int
) -> None:
    folder, read = folders[kind]
    copy = folder.parent / f"{kind}-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, copy_function=os.link)
    files = sorted(path for path in copy.iterdir() if path.is_file())
    file = files[pick % len(files)]
    changed_file(file, seed)
    refusal = refusal_of(lambda: read(copy))
    assert "\n" not in refusal
    assert len(refusal) < 2_000


@examples(60)
@given(seed=st.integers(0, 2**32))
def test_no_manifest_can_do_more_than_be_refused(
    folders: dict[str, tuple[Path, Reader]], seed: int
) -> None:
    folder, _ = folders["checkpoint"]
    source = Checkpoint.open(folder)
    copy = folder.parent / "manifest-copy.json"
    save_manifest(build_manifest(source), copy)
    changed_file(copy, seed)
    assert "\n" not in refusal_of(lambda: load_manifest(copy, source.config))
