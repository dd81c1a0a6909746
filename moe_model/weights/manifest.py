"""Do two hosts have the same checkpoint? Digests of all pieces, and the checkpoint_id.

checkpoint_id = SHA-256 over the config and the manifest of digests. The manifest is made once
(`expertmesh model verify`, or on first use) and kept beside the checkpoint. So a host with a few
pieces of a 230 GB model need not hash all of it to prove that they belong to the mesh's
checkpoint: it hashes what it loads.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from moe_model.config import ModelConfig
from moe_model.json_files import read_json
from moe_model.weights.checkpoint import Checkpoint

log = logging.getLogger(__name__)

MANIFEST_NAME = "expertmesh_manifest.json"
KEEP_ABOVE_BYTES = 256 * 1024 * 1024
"""Total size of the shards above which a manifest is kept without being asked for."""
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
Progress = Callable[[int, int], None]
"""(layers done, layers in all)."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Digests (hex SHA-256) of the attention side and of every piece."""

    config: str
    attention: str
    pieces: tuple[tuple[str, ...], ...]  # [layer][expert]

    @property
    def checkpoint_id(self) -> str:
        """One id for config and weights."""
        text = json.dumps([self.config, self.attention, self.pieces], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def config_digest(config: ModelConfig) -> str:
    """SHA-256 over every field that changes what is computed; the family's names change nothing."""
    fields = asdict(config)
    del fields["model_type"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def piece_digest(checkpoint: Checkpoint, layer_idx: int, expert_id: int) -> str:
    """Digest of one piece as stored."""
    return checkpoint.digest(checkpoint.names.expert(layer_idx, expert_id).values())


def build_manifest(checkpoint: Checkpoint, progress: Progress | None = None) -> Manifest:
    """Hash the whole checkpoint; reads every byte once. Raises ValueError when it is partial."""
    config = checkpoint.config
    missing = [spec.name for _, spec in checkpoint.names.every() if not checkpoint.holds(spec)]
    if missing:
        raise ValueError(
            f"{checkpoint.folder}: tensor {missing[0]} is missing ({len(missing)} such tensors): "
            "a shard is missing or incomplete; on a host that is meant to have only some shards, "
            f"put the whole checkpoint's {MANIFEST_NAME} beside them"
        )
    pieces = []
    for layer_idx in range(config.num_layers):
        pieces.append(
            tuple(piece_digest(checkpoint, layer_idx, e) for e in range(config.num_experts))
        )
        if progress:
            progress(layer_idx + 1, config.num_layers)
    return Manifest(
        config=config_digest(config),
        attention=checkpoint.digest(checkpoint.names.attention()),
        pieces=tuple(pieces),
    )


def load_manifest(path: Path, config: ModelConfig) -> Manifest:
    """Read and check a manifest file. Raises ValueError naming the file."""
    raw = read_json(path, limit_bytes=MAX_MANIFEST_BYTES)
    digests = raw.get("pieces")
    shape_ok = (
        isinstance(digests, list)
        and len(digests) == config.num_layers
        and all(isinstance(row, list) and len(row) == config.num_experts for row in digests)
        and all(_is_digest(item) for row in digests for item in row)
    )
    if not shape_ok or not _is_digest(raw.get("attention")) or not _is_digest(raw.get("config")):
        raise ValueError(f"{path}: not a manifest of this model; run `expertmesh model verify`")
    if raw["config"] != config_digest(config):
        raise ValueError(
            f"{path}: made for another config.json; run `expertmesh model verify --write-manifest`"
        )
    return Manifest(
        config=raw["config"],
        attention=raw["attention"],
        pieces=tuple(tuple(row) for row in raw["pieces"]),
    )


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write atomically: readers see the old file or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(asdict(manifest), file)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def ensure_manifest(checkpoint: Checkpoint, progress: Progress | None = None) -> Manifest:
    """The checkpoint's manifest: from the file beside it, else hashed now.

    Only a large checkpoint's manifest is kept: hashing a small one takes less time than importing
    torch, and its files can then be replaced without an old manifest getting in the way.
    """
    path = checkpoint.folder / MANIFEST_NAME
    if path.exists():
        return load_manifest(path, checkpoint.config)
    if checkpoint.size_bytes <= KEEP_ABOVE_BYTES:
        return build_manifest(checkpoint, progress)
    log.info("no %s in %s: hashing the checkpoint once", MANIFEST_NAME, checkpoint.folder)
    manifest = build_manifest(checkpoint, progress)
    try:
        save_manifest(manifest, path)
    except OSError as error:
        log.warning("cannot keep %s (%s): it will be hashed at every start", path, error.strerror)
    return manifest


def verify_attention(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Hash what an attention service loads. Raises ValueError when the manifest says otherwise."""
    digest = checkpoint.digest(checkpoint.names.attention())
    _require_equal(checkpoint.folder, "attention weights differ", digest, manifest.attention)


def verify_piece(
    checkpoint: Checkpoint, manifest: Manifest, layer_idx: int, expert_id: int
) -> None:
    """Hash one piece. Raises ValueError when the manifest says otherwise."""
    digest = piece_digest(checkpoint, layer_idx, expert_id)
    what = f"layer {layer_idx} expert {expert_id} differs"
    _require_equal(checkpoint.folder, what, digest, manifest.pieces[layer_idx][expert_id])


def verify_checkpoint(folder: Path, progress: Progress | None = None) -> Manifest:
    """Check every byte of a complete checkpoint against its manifest if it has one.

    Raises ValueError naming the first file, tensor or piece that is wrong.
    """
    checkpoint = Checkpoint.open(folder)
    manifest = build_manifest(checkpoint, progress)
    path = checkpoint.folder / MANIFEST_NAME
    if path.exists():
        kept = load_manifest(path, checkpoint.config)
        _require_equal(folder, "attention weights differ", manifest.attention, kept.attention)
        for layer_idx, (was, now) in enumerate(zip(kept.pieces, manifest.pieces, strict=True)):
            for expert_id, (old, new) in enumerate(zip(was, now, strict=True)):
                _require_equal(folder, f"layer {layer_idx} expert {expert_id} differs", new, old)
    return manifest


def _require_equal(folder: Path, what: str, digest: str, expected: str) -> None:
    if digest != expected:
        raise ValueError(
            f"{folder}: {what} from {MANIFEST_NAME}: the manifest of another checkpoint, "
            "or a damaged file"
        )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
