"""What does a process take on a GPU beside weights, keys and values? From the shapes. No torch.

Bounds of what moe_model/kernels/cuda allocates, part by part. What is not there at the same time is
added up, too: torch's allocator keeps what was given back. Two numbers are assumptions: what the
libraries take, and what the driver takes for a kernel in a graph; they are what torch does not
count, and the start log has them beside what was taken.
"""

from dataclasses import dataclass, fields

from moe_model.config import ModelConfig

LIBRARIES_BYTES = 800 * 10**6
"""CUDA's context, compiled kernels, and what torch's allocator rounds up. Not measured."""
KERNEL_IN_GRAPH_BYTES = 16 * 2**10
"""Of the driver, for each kernel of a captured graph. Not measured."""
GRAPH_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
TILED_ROWS = (16, 32, 64, 128, 256)
"""Of graphs for chunks, where all experts are here."""
SPAN, MOST_ITEMS = 256, 8192
"""Positions of an item of decode attention, and the most items whose sums are there at once."""
MOST_GRAPHS, MOST_HOP_SHAPES, MOST_CALL_GRAPHS = 160, 64, 1024
HOP_GROWTH = 4
"""From one number of items to the next, where experts are elsewhere."""
FEW_ROWS, GROUP, SEGMENT = 64, 128, 8
"""A linear of so few rows leaves a part for each segment of so many groups of inputs."""
LAYER_KERNELS, CALL_KERNELS = 14, 8
SCORED_ROWS = 16
"""Rows of a prompt whose logits are there at once."""
RANKED_AT_ONCE, RANKED_BYTES = 1_600_000, 80
"""Logits that are ranked at once where a draw needs the whole vocabulary; bytes for each."""
TABLES_BYTES = len(GRAPH_ROWS) * 2**20
HOST_BLOCKS_BYTES = 3 * (32 << 20)
"""Buffers and a gather, where evicted blocks go to host memory."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The largest steps. As the flags of an attention service say by default."""

    rows: int = 2048
    decode_rows: int = 64
    positions: int = 0
    """Of a sequence at its longest; 0: the model's."""
    has_host_blocks: bool = False


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Bytes. `rows`: of a step or a call, in its widest layer; `attention`: its partial sums;
    `graphs`: memory that graphs share and keep; `kernels`: what the driver keeps for these."""

    libraries: int = 0
    kernels: int = 0
    rows: int = 0
    attention: int = 0
    logits: int = 0
    graphs: int = 0

    @property
    def size(self) -> int:
        return sum(vars(self).values())

    @property
    def outside_torch(self) -> int:
        """What its allocator does not count."""
        return self.libraries + self.kernels

    def __str__(self) -> str:
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in parts.items() if size)


USUAL_STEPS = Steps()
NO_WORKSPACE = Workspace()


def attention_workspace(config: ModelConfig, steps: Steps, *, has_experts: bool) -> Workspace:
    """Of an attention service. `has_experts`: it holds them all, so that a step is one graph."""
    longest = steps.positions or config.max_position_embeddings
    rows = max(steps.rows, steps.decode_rows)
    host_blocks = HOST_BLOCKS_BYTES if steps.has_host_blocks else 0
    kept = _kept_bytes(config, rows, has_experts=has_experts)
    layer = _attention_layer_bytes(config, rows)
    if has_experts:
        layer += _expert_rows_bytes(config, rows)
    return Workspace(
        libraries=LIBRARIES_BYTES,
        rows=kept + layer + host_blocks,
        attention=_partials_bytes(config, steps.decode_rows, longest),
        logits=_logits_bytes(config, steps, has_experts=has_experts),
        kernels=_num_graphs(steps.decode_rows, rows, longest, has_experts=has_experts)
        * config.num_layers
        * LAYER_KERNELS
        * KERNEL_IN_GRAPH_BYTES,
        graphs=_graphs_bytes(config, steps.decode_rows, rows, longest, has_experts=has_experts),
    )


def pool_workspace(config: ModelConfig, *, most_rows: int) -> Workspace:
    """Of a pool whose calls have at most so many rows, with some of every layer.

    Kernels are compiled by another thread than calls', in memory of its own.
    """
    row = config.hidden_size * (2 + 4) + config.top_k * (4 + 4 + 4) + 4
    graphs = min(MOST_CALL_GRAPHS, config.num_layers * len(GRAPH_ROWS))
    few = GRAPH_ROWS[-1]
    return Workspace(
        libraries=LIBRARIES_BYTES,
        rows=2 * (most_rows * row + _expert_rows_bytes(config, most_rows)) + few * row,
        kernels=graphs * CALL_KERNELS * KERNEL_IN_GRAPH_BYTES,
        graphs=_expert_rows_bytes(config, few),
    )


def graph_shapes(decode_rows: int, longest: int, *, growth: int) -> set[tuple[int, int]]:
    """Rows and items for which decode steps may ask for a graph."""
    spans, largest = -(-longest // SPAN), _bucket(decode_rows)
    return {
        (rows, items)
        for rows in GRAPH_ROWS
        if rows <= largest
        for items in _growing(max(rows, 2), growth, min(rows * spans, MOST_ITEMS))
    }


def _kept_bytes(config: ModelConfig, rows: int, *, has_experts: bool) -> int:
    """Rows that go from layer to layer, and whom they chose."""
    hidden = 4 * 2 * config.hidden_size + (0 if has_experts else 4 * config.hidden_size)
    chosen = config.num_layers * config.top_k * 4
    return rows * (hidden + chosen + 8 * config.rotary_dim + 8 * 8)


def _attention_layer_bytes(config: ModelConfig, rows: int) -> int:
    d, q = config.hidden_size, config.query_size
    qkv = q + 2 * config.kv_size
    return (
        _sums_bytes(rows, qkv, d, SEGMENT)
        + _sums_bytes(rows, d, q, SEGMENT)
        + _sums_bytes(rows, config.num_experts, d, 1)
        + rows * (2 * 2 * q + 4 * config.top_k)
    )


def _sums_bytes(rows: int, outputs: int, inputs: int, segment: int) -> int:
    """float32 sums of a linear: in parts where rows are few."""
    groups = -(-inputs // GROUP)
    parts = -(-groups // segment)
    return 4 * outputs * max(rows, min(rows, FEW_ROWS) * parts)


def _expert_rows_bytes(config: ModelConfig, rows: int) -> int:
    """Of every (row, expert) pair: between up and down, after down, and their order."""
    pairs = rows * config.top_k
    return pairs * (2 * (config.expert_size + config.hidden_size) + 4 * 4)


def _partials_bytes(config: ModelConfig, decode_rows: int, longest: int) -> int:
    """Of a maximum, a sum and a weighted sum for each item and head."""
    spans = -(-longest // SPAN)
    items = min(_bucket(decode_rows) * spans, max(MOST_ITEMS, spans))
    return items * config.num_heads * (config.head_dim + 2) * 4


def _logits_bytes(config: ModelConfig, steps: Steps, *, has_experts: bool) -> int:
    """Of rows that are sampled, of their copies, and of prompts that are scored."""
    row = 4 * config.vocab_size
    graphs = GRAPH_ROWS[-1] if has_experts else 0
    most = max(RANKED_AT_ONCE, config.vocab_size)
    ranked = min(most, steps.decode_rows * config.vocab_size) * RANKED_BYTES
    return row * (graphs + 4 * steps.decode_rows + 3 * SCORED_ROWS) + ranked


def _num_graphs(decode_rows: int, rows: int, longest: int, *, has_experts: bool) -> int:
    """Whole steps', or each a graph for every layer: all that steps can ask for."""
    growth = 2 if has_experts else HOP_GROWTH
    shapes = len(graph_shapes(decode_rows, longest, growth=growth))
    if not has_experts:
        return min(shapes, MOST_HOP_SHAPES)
    return min(2 * shapes, MOST_GRAPHS) + len(_tiled(rows))  # with and without random numbers


def _graphs_bytes(
    config: ModelConfig, decode_rows: int, rows: int, longest: int, *, has_experts: bool
) -> int:
    """The memory that graphs share, what each one keeps, and their numbers."""
    largest = _bucket(decode_rows)
    count = _num_graphs(decode_rows, rows, longest, has_experts=has_experts)
    shared = _partials_bytes(config, largest, longest)
    if not has_experts:
        shared += _attention_layer_bytes(config, largest)
        kept = _kept_bytes(config, largest, has_experts=False) * count
        return shared + kept + TABLES_BYTES
    tiled = _tiled(rows)
    widest = max(largest, tiled[-1])
    shared += _attention_layer_bytes(config, widest) + _expert_rows_bytes(config, widest)
    kept = _kept_bytes(config, largest, has_experts=True) + 2 * config.hidden_size * (
        largest * (count - len(tiled)) + sum(tiled)
    )
    return shared + kept + 3 * TABLES_BYTES


def _tiled(rows: int) -> list[int]:
    """Rows of graphs for chunks, in steps of so many rows at most."""
    largest = next((size for size in TILED_ROWS if size >= rows), TILED_ROWS[-1])
    return [size for size in TILED_ROWS if size <= largest]


def _bucket(rows: int) -> int:
    """Rows of the graph for so many."""
    return next((size for size in GRAPH_ROWS if size >= rows), max(rows, GRAPH_ROWS[-1]))


def _growing(first: int, growth: int, most: int) -> list[int]:
    """`first`, `growth` times that, and so on, up to the first that holds `most`."""
    found = [first]
    while found[-1] < most:
        found.append(min(growth * found[-1], MOST_ITEMS))
    return found
