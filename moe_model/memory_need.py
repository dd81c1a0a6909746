"""How much memory does a service take on its device, does it fit, and what would? No torch.

Known before anything is loaded: services, `expertmesh up`, `expertmesh plan` and the pages with
tables ask the same functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moe_model.config import ModelConfig
from moe_model.formats import ON_GPU, attention_bytes, kv_position_bytes, matrix_bytes, piece_bytes
from moe_model.gpus import Gpu, free_bytes
from moe_model.workspace import (
    NO_WORKSPACE,
    USUAL_STEPS,
    Steps,
    Workspace,
    attention_workspace,
    pool_workspace,
)

Need = Callable[[str], "MemoryNeed"]
"""Weight format -> the need with it."""


def gib(size_bytes: float) -> str:
    return (
        f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
    )


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes on the device. `layer`: the room in which a layer is put together, as far as the
    workspace, which may be empty meanwhile, is too small for it."""

    weights: int
    layer: int = 0
    workspace: Workspace = NO_WORKSPACE
    kv_position: int = 0
    """Of keys and values of one position; 0: none are kept."""

    @property
    def fixed(self) -> int:
        """Everything but keys and values."""
        return self.weights + self.layer + self.workspace.size

    def __str__(self) -> str:
        parts = [f"weights {gib(self.weights)}"]
        parts += [f"room to load a layer {gib(self.layer)}"] if self.layer else []
        size = self.workspace.size
        parts += [f"workspace {gib(size)} ({self.workspace})"] if size else []
        if self.kv_position:
            parts.append(f"KV {self.kv_position * 1000 / 2**20:,.1f} MiB for 1,000 positions")
        return ", ".join(parts)


def pool_need(
    config: ModelConfig,
    experts: str,
    device: str,
    *,
    num_pieces: int,
    most_in_a_layer: int,
    most_rows: int,
) -> MemoryNeed:
    """Of a pool.

    Args:
        most_in_a_layer: the most pieces that it holds of one layer.
        most_rows: of a call.
    """
    piece = piece_bytes(config, experts, device)
    on_gpu = device.startswith("cuda")
    return MemoryNeed(
        weights=num_pieces * piece,
        layer=most_in_a_layer * piece if on_gpu else 0,
        workspace=pool_workspace(config, most_rows=most_rows) if on_gpu else NO_WORKSPACE,
    )


def attention_need(
    config: ModelConfig,
    device: str,
    *,
    compute_dtype: str,
    linears: str,
    experts: str = "",
    kv_dtype: str = "auto",
    steps: Steps = USUAL_STEPS,
) -> MemoryNeed:
    """Of an attention service. `experts`: their format, if it holds all of them; empty: none."""
    weights = attention_bytes(config, compute_dtype, linears, device)
    layer = 0
    if experts:
        piece = piece_bytes(config, experts, device)
        weights += config.num_pieces * piece
        layer = config.num_experts * piece
    head = matrix_bytes(linears, device, config.vocab_size, config.hidden_size)
    workspace = NO_WORKSPACE
    if device.startswith("cuda"):
        workspace = attention_workspace(config, steps, has_experts=bool(experts))
        layer = max(0, max(layer, head) - (workspace.size - workspace.libraries))
    else:
        layer = 0
    return MemoryNeed(
        weights=weights,
        layer=layer,
        workspace=workspace,
        kv_position=kv_position_bytes(config, kv_dtype, compute_dtype),
    )


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a service may take of a GPU."""

    gpu: Gpu
    share: float
    free: int

    @property
    def size(self) -> int:
        return min(int(self.share * self.gpu.total_bytes), self.free)

    def __str__(self) -> str:
        is_free = self.free >= self.share * self.gpu.total_bytes
        why = f"--gpu-memory {self.share:g}" if is_free else "the rest is in use"
        return f"{gib(self.size)} of {self.gpu} ({why})"

    def why_not(self, need: MemoryNeed, kv_bytes: int, others: list[str]) -> str:
        """Why it is too small, with what would fit; empty if it is not."""
        if need.fixed + kv_bytes <= self.size:
            return ""
        kv = f", KV {gib(kv_bytes)}" if kv_bytes else ""
        needed = f"needs {gib(need.fixed + kv_bytes)} ({need}{kv}) and may take {self}"
        hints = list(others)
        left = self.size - need.fixed
        if need.kv_position and left >= need.kv_position:
            hints.insert(0, f"KV of {left // need.kv_position:,} positions (--kv-memory {left})")
        return needed + "; " + (f"what fits: {', or '.join(hints)}" if hints else "nothing fits")


def room_on(gpu: Gpu, share: float, free: Callable[[str], int] = free_bytes) -> Room:
    """Raises ValueError if the device does not answer."""
    return Room(gpu=gpu, share=share, free=free(gpu.device))


def formats_that_fit(flag: str, chosen: str, need: Need, room: int, kv_bytes: int = 0) -> list[str]:
    """A hint for the first smaller format with which it fits, as a list of at most one."""
    smaller = [name for name in ON_GPU if need(name).weights < need(chosen).weights]
    fitting = [name for name in smaller if need(name).fixed + kv_bytes <= room]
    return [f"{flag} {fitting[0]}"] if fitting else []


def pieces_that_fit(need: MemoryNeed, piece: int, room: int) -> int:
    """How many pieces of these bytes fit beside the rest of a pool's need."""
    return max(0, (room - need.layer - need.workspace.size) // piece)
