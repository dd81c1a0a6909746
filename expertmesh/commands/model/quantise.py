"""`expertmesh model quantise`: how are weights repacked once, so that services only map them?"""

import shutil
from pathlib import Path

import typer

from expertmesh.commands.model.parts import TEXT_FILES
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    JSON,
    command_errors,
    help_text,
    print_json,
    stdout,
)
from expertmesh.progress import layer_bar
from moe_model.formats import read_format
from moe_model.weights.packed_header import PACKED_FORMATS
from rpc.process.sizes import format_bytes

_QUANTISE_HELP = f"""Write a checkpoint's weights in the layout that the CPU kernels read.

Services map such a folder into memory (expertmesh up --model OUT), so that nothing is packed or
copied when they start; on a GPU the layout is changed (not of int8). The folder keeps the
checkpoint_id, so pools with different formats can serve together. docs/weight-formats.md compares
the sizes and the errors of the formats.

  bf16       2.00 bytes per weight, rounded once
  fp8        1.03 bytes per weight, an FP8 checkpoint's codes and scales unchanged
  int8       1.03 bytes per weight, a scale for 128 weights, inputs in int8 too
  int4       0.56 bytes per weight, a scale for 32 weights, inputs in int8
  int4_g128  0.52 bytes per weight, a scale for 128 weights, inputs in int8

The folder may have only a part of a model (from expertmesh model split). If a run is interrupted,
run it again: it continues where it stopped.

Examples:

  expertmesh model quantise ~/models/minimax-m2 ~/models/minimax-m2-int8 \\
    --format int8

  expertmesh model quantise east east-int4 --format int4

{EXIT_CODES_HELP}
"""


def register(group: typer.Typer) -> None:
    group.command("quantise", help=help_text(_QUANTISE_HELP))(quantise)


def quantise(
    path: Path = typer.Argument(..., help="Folder of a checkpoint or of a part of it."),
    out: Path = typer.Argument(
        ..., help="Folder to write: a new one, or that of an interrupted run."
    ),
    weight_format: str = typer.Option(
        ...,
        "--format",
        envvar="EXPERTMESH_QUANTISE_FORMAT",
        help=f"Format of the experts' weights: {', '.join(PACKED_FORMATS)}.",
    ),
    linear_format: str = typer.Option(
        "bf16",
        "--linear-format",
        envvar="EXPERTMESH_LINEAR_FORMAT",
        help="Format of attention's weights and of the LM head: the same choices.",
    ),
    as_json: bool = JSON,
) -> None:
    with command_errors(EXIT_USAGE):
        weight_format = read_format("--format", weight_format, PACKED_FORMATS)
        linear_format = read_format("--linear-format", linear_format, PACKED_FORMATS)
    from moe_model.weights.checkpoint import Checkpoint  # torch: only where weights are read
    from moe_model.weights.manifest import MANIFEST_NAME, ensure_manifest
    from moe_model.weights.pack_checkpoint import PackJob, write_packed

    with command_errors():
        source = Checkpoint.open(path, partial=(path / MANIFEST_NAME).exists())
        job = PackJob(
            source=source,
            manifest=ensure_manifest(source),
            format=weight_format,
            linear_format=linear_format,
        )
        with layer_bar("packing layer", source.config.num_layers + 1, hidden=as_json) as advance:
            size = write_packed(job, out, advance)
        for name in TEXT_FILES if job.has_attention else ():
            if (path / name).is_file():
                shutil.copyfile(path / name, out / name)
    if as_json:
        facts = {"format": job.format, "linear_format": job.linear_format, "bytes": size}
        print_json({"folder": str(out), "checkpoint_id": job.manifest.checkpoint_id, **facts})
        return
    stdout().print(
        f"{out}: {format_bytes(size)}, experts in {job.format}, linears in {job.linear_format}\n"
        f"checkpoint_id {job.manifest.checkpoint_id} (unchanged)",
        markup=False,
        soft_wrap=True,
    )
