"""`expertmesh model split` and `pull`: how does a host get only its part of a checkpoint?"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from expertmesh.commands.plan.group import FORMAT, HOST, MEMORY, POOLS, REPLICAS, STRIPING, machines
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)
from expertmesh.forecasting.forecast import forecast
from moe_model.config import ModelConfig
from moe_model.families.known import load_config, parse_config
from moe_model.formats import FORMATS, read_format
from rpc.mesh.pieces import Pieces, parse_ranges
from rpc.process.sizes import format_bytes

ATTENTION = "attention"
MANIFEST_NAME = "expertmesh_manifest.json"
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)

_SPLIT_HELP = f"""Write a folder for each host with only its part of a checkpoint.

The parts are those that `expertmesh plan` shows. One more folder, named attention, has what the
attention service and the gateway need. All parts keep the checkpoint_id of the whole. Start each
pool with --model FOLDER; the router assigns it what is in the folder.

Example:

  expertmesh model split ~/models/minimax-m2 --out parts \\
    --host east:256GiB --host west:256GiB

{EXIT_CODES_HELP}
"""

_PULL_HELP = f"""Download a part of a checkpoint from a model repository, by byte range.

Needs network access and huggingface_hub. If a download is interrupted, run it again: it continues
where it stopped. If the repository has the manifest of the whole checkpoint, it is downloaded too;
otherwise give one with --manifest, made where the whole checkpoint is:
expertmesh model verify FOLDER --write-manifest

Examples:

  expertmesh model pull MiniMaxAI/MiniMax-M2 --out east --layers 0-30

  expertmesh model pull MiniMaxAI/MiniMax-M2 --out attention --attention

{EXIT_CODES_HELP}
"""


def register(group: typer.Typer) -> None:
    group.command("split", help=help_text(_SPLIT_HELP))(split)
    group.command("pull", help=help_text(_PULL_HELP))(pull)


def split(
    path: Path = typer.Argument(..., help="Folder of the whole checkpoint."),
    out: Path = typer.Option(..., envvar="EXPERTMESH_MODEL_OUT", help="Folder for the parts."),
    host: list[str] = HOST,
    pools: int = POOLS,
    memory: str = MEMORY,
    weight_format: str = FORMAT,
    replicas: int = REPLICAS,
    striping: str = STRIPING,
    as_json: bool = JSON,
) -> None:
    from moe_model.weights.checkpoint import Checkpoint  # torch: only where weights are read
    from moe_model.weights.manifest import ensure_manifest, save_manifest
    from moe_model.weights.partial import LocalSource

    with command_errors(EXIT_USAGE):
        weight_format = read_format("--format", weight_format, list(FORMATS))
        config = load_config(path)
        made = forecast(
            config,
            machines(host, pools, memory, ""),
            weight_format=weight_format,
            replicas=replicas,
            striping=striping,
            batch=1,
            round_trip_s=(1e-3, 1e-3),
        )
        if any(name == ATTENTION or "/" in name or name in (".", "..") for name in made.plan.hold):
            raise ValueError(
                f"--host: the name becomes a folder's, so not {ATTENTION!r}, '.', '..' or with '/'"
            )
    if made.problems():
        raise CommandError("; ".join(made.problems()))
    try:
        checkpoint = Checkpoint.open(path)
        manifest = ensure_manifest(checkpoint)
        source, sizes = LocalSource(checkpoint), {}
        for name, hold in {**made.plan.hold, ATTENTION: Pieces()}.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            is_attention = name == ATTENTION
            shutil.copyfile(path / "config.json", folder / "config.json")
            save_manifest(manifest, folder / MANIFEST_NAME)
            for extra in TEXT_FILES if is_attention else ():
                if (path / extra).is_file():
                    shutil.copyfile(path / extra, folder / extra)
            sizes[name] = _write(folder, source, config, hold, attention=is_attention)
    except (ValueError, OSError) as error:
        raise CommandError(f"{path}: {error}") from None
    _report({str(out / name): size for name, size in sizes.items()}, as_json)


def pull(
    repo: str = typer.Argument(..., help="The repository, as OWNER/NAME."),
    out: Path = typer.Option(..., envvar="EXPERTMESH_MODEL_OUT", help="Folder to write to."),
    layers: str = typer.Option(
        "",
        envvar="EXPERTMESH_LAYERS",
        help="Layers whose experts to download, like 0-30,45. Default: all.",
    ),
    experts: str = typer.Option(
        "", envvar="EXPERTMESH_EXPERTS", help="Experts of these layers, like 0-127. Default: all."
    ),
    attention: bool = typer.Option(
        False,
        "--attention",
        envvar="EXPERTMESH_PULL_ATTENTION",
        help="Download what attention and gateway need, instead of experts.",
    ),
    revision: str | None = typer.Option(
        None, envvar="EXPERTMESH_REVISION", help="Branch, tag or commit of the repository."
    ),
    manifest: Path | None = typer.Option(
        None, envvar="EXPERTMESH_MANIFEST", help="File with the manifest of the whole checkpoint."
    ),
    as_json: bool = JSON,
) -> None:
    from expertmesh.hub import HubSource

    if attention and (layers or experts):
        raise CommandError("--attention: cannot go with --layers or --experts", EXIT_USAGE)
    with command_errors():
        source = HubSource(repo, revision)
        text = source.file("config.json")
        if text is None:
            raise ValueError(f"{repo}: no such repository, or it has no config.json")
        config = parse_config(json.loads(text))
        hold = Pieces() if attention else _chosen(config, layers, experts)
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_bytes(text)
        whole = manifest.read_bytes() if manifest else source.file(MANIFEST_NAME)
        if whole is not None:
            (out / MANIFEST_NAME).write_bytes(whole)
        for name in TEXT_FILES if attention else ():
            if (extra := source.file(name)) is not None:
                (out / name).write_bytes(extra)
        size = _write(out, source, config, hold, attention=attention)
    if whole is None:
        stderr().print(
            f"{repo} has no {MANIFEST_NAME}: before a service can use this part, put the whole "
            f"checkpoint's into {out}",
            soft_wrap=True,
        )
    _report({str(out): size}, as_json)


def _chosen(config: ModelConfig, layers: str, experts: str) -> Pieces:
    return Pieces.grid(
        parse_ranges(layers, "--layers", config.num_layers) if layers else range(config.num_layers),
        parse_ranges(experts, "--experts", config.num_experts)
        if experts
        else range(config.num_experts),
    )


def _write(
    folder: Path, source: object, config: ModelConfig, hold: Pieces, *, attention: bool
) -> int:
    from moe_model.weights.partial import wanted_shards, write_parts

    chosen: Mapping[int, Sequence[int]] = {layer: hold.experts(layer) for layer in hold.layers}
    shards = wanted_shards(config, chosen, attention=attention)
    total = 0
    for name, size in write_parts(folder, source, shards):  # type: ignore[arg-type]
        total += size
        stderr().print(f"{folder / name}: {format_bytes(size)}", markup=False, soft_wrap=True)
    return total


def _report(sizes: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json({"folders": [{"folder": name, "bytes": size} for name, size in sizes.items()]})
        return
    for name, size in sizes.items():
        stdout().print(f"{name}: {format_bytes(size)}", markup=False, soft_wrap=True)
