"""`expertmesh model info` and `verify`: what is in a checkpoint folder, and is it intact?"""

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from expertmesh.cluster.cluster_plan import demo_model_dir, describe
from expertmesh.commands.model import parts, quantise
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stdout,
)
from expertmesh.help_pages import CommandGroup
from expertmesh.progress import layer_bar
from moe_model.config import ModelConfig
from moe_model.families.known import load_config
from moe_model.weights.packed_header import is_packed, read_header
from rpc.process.sizes import format_bytes

PATH = typer.Argument(None, help="Checkpoint folder. Default: the bundled demonstration model.")

_INFO_HELP = f"""Show a checkpoint's shape and how much memory it needs.

Needs only config.json, so it works before the weights are downloaded.

Examples:

  expertmesh model info

  expertmesh model info ~/models/minimax-m2 --json

{EXIT_CODES_HELP}
"""

_VERIFY_HELP = f"""Read every byte of a checkpoint and check that it is complete and intact.

Checks the index and every shard's header, names, shapes, dtypes and scales. If the folder has a
manifest, the digest of every piece is compared with it. Prints the checkpoint_id, by which services
make sure that they serve the same weights.

Examples:

  expertmesh model verify ~/models/minimax-m2

  expertmesh model verify ~/models/minimax-m2 --write-manifest

{EXIT_CODES_HELP}
"""


def register(app: typer.Typer) -> None:
    group = CommandGroup(
        help="Inspect, verify, split, download and repack checkpoint folders.",
        no_args_is_help=True,
    )
    group.command("info", help=help_text(_INFO_HELP))(info)
    group.command("verify", help=help_text(_VERIFY_HELP))(verify)
    parts.register(group)
    quantise.register(group)
    app.add_typer(group, name="model")


def info(path: Path | None = PATH, as_json: bool = JSON) -> None:
    folder = path or demo_model_dir()
    facts = checkpoint_facts(folder, _config(folder))
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        shown = format_bytes(value) if name.endswith("_bytes") else str(value)
        table.add_row(name, shown)
    stdout().print(table)


def checkpoint_facts(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """The sizes that decide where a model fits; the names have units."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {
        "folder": str(folder),
        "description": describe(config),
        "layers": config.num_layers,
        "experts_per_layer": config.num_experts,
        "experts_per_token": config.top_k,
        "hidden_size": config.hidden_size,
        "expert_size": config.expert_size,
        "vocab_size": config.vocab_size,
        "context_tokens": config.max_position_embeddings,
        "pieces": config.num_pieces,
        "stored_format": _stored_format(folder, config),
        "stored_bytes": stored,
        "piece_bfloat16_bytes": 2 * config.expert_params,
        "all_pieces_bfloat16_bytes": 2 * config.expert_params * config.num_pieces,
        "attention_bfloat16_bytes": 2 * config.attention_params,
        "kv_per_token_bfloat16_bytes": config.kv_bytes_per_token(2),
    }


def _stored_format(folder: Path, config: ModelConfig) -> str:
    if is_packed(folder):
        with command_errors():
            header = read_header(folder)
        return f"{header.format} (linears {header.linear_format}), in the layout of the CPU kernels"
    return config.quant.method if config.quant.method != "none" else config.dtype


def verify(
    path: Path | None = PATH,
    write_manifest: bool = typer.Option(
        False,
        "--write-manifest",
        envvar="EXPERTMESH_WRITE_MANIFEST",
        help="Write a manifest of what is there now, in place of the folder's own.",
    ),
    as_json: bool = JSON,
) -> None:
    from moe_model.weights.checkpoint import Checkpoint  # torch: only where weights are read
    from moe_model.weights.manifest import (
        MANIFEST_NAME,
        build_manifest,
        save_manifest,
        verify_checkpoint,
    )
    from moe_model.weights.packed_checkpoint import verify_packed

    folder = path or demo_model_dir()
    config = _config(folder)
    compared = write_manifest or (folder / MANIFEST_NAME).exists()
    with command_errors(), layer_bar("reading layer", config.num_layers, hidden=as_json) as advance:
        if is_packed(folder):
            if write_manifest:
                raise ValueError(
                    f"--write-manifest: {folder} is packed and has its source's manifest"
                )
            manifest = verify_packed(folder, advance)
        elif write_manifest:
            manifest = build_manifest(Checkpoint.open(folder), advance)
            save_manifest(manifest, folder / MANIFEST_NAME)
        else:
            manifest = verify_checkpoint(folder, advance)
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "ok": True,
                "compared_with_manifest": compared,
                "checkpoint_id": manifest.checkpoint_id,
            }
        )
    else:
        how = (
            "every byte is as the manifest says"
            if compared
            else "all tensors are there and well-formed; there is no "
            f"{MANIFEST_NAME} to compare their bytes with, so compare the checkpoint_id with "
            "another copy's"
        )
        stdout().print(f"{folder}: {how}\ncheckpoint_id {manifest.checkpoint_id}", soft_wrap=True)


def _config(folder: Path) -> ModelConfig:
    if not folder.is_dir():
        raise CommandError(f"{folder}: not a checkpoint folder", EXIT_USAGE)
    with command_errors():
        return load_config(folder)
