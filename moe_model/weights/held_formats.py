"""What do --dtype, --expert-dtype and --linear-dtype mean for a folder?

One answer for `expertmesh up` and the services. No torch.
"""

from dataclasses import dataclass
from pathlib import Path

from moe_model.config import ModelConfig
from moe_model.formats import FORMATS, choose_format
from moe_model.weights.packed_header import is_packed, read_header


@dataclass(frozen=True, kw_only=True)
class HeldFormats:
    """`compute_dtype`: f32 or bf16; the others: names of moe_model/formats.py."""

    compute_dtype: str
    experts: str
    linears: str


def held_formats(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: str = "auto",
    expert_dtype: str = "auto",
    linear_dtype: str = "auto",
    device: str = "cpu",
) -> HeldFormats:
    """A checkpoint can be held in any format, packed weights only in their own, computed in bf16.

    Raises:
        ValueError: flags that contradict each other or the formats of a packed folder.
    """
    if not is_packed(folder):
        compute_dtype = config.auto_dtype if dtype == "auto" else dtype
        return HeldFormats(
            compute_dtype=compute_dtype,
            experts=choose_format(expert_dtype, "--expert-dtype", compute_dtype, device),
            linears=choose_format(linear_dtype, "--linear-dtype", compute_dtype, device),
        )
    header = read_header(folder)
    source = "use the checkpoint that it was made from"
    for name, flag, packed in (
        ("--dtype", dtype, "bf16"),
        ("--expert-dtype", expert_dtype, header.format),
        ("--linear-dtype", linear_dtype, header.linear_format),
    ):
        if flag not in ("auto", packed):
            what = "computes in" if name == "--dtype" else "is packed in"
            raise ValueError(f"{name} {flag}: {folder} {what} {packed}; {source} for another")
    for packed in (header.format, header.linear_format):
        devices = FORMATS[packed].devices
        if devices and device not in devices:
            raise ValueError(
                f"--device {device}: {folder} is packed in {packed}, for which only "
                f"{' and '.join(devices)} have kernels; {source}"
            )
    return HeldFormats(compute_dtype="bf16", experts=header.format, linears=header.linear_format)
