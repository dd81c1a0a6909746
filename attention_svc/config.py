"""What can be configured about an attention service?"""

import math
from dataclasses import dataclass
from pathlib import Path

from moe_model.config import ModelConfig
from moe_model.formats import CHOICES, DTYPE_CHOICES, read_flags
from moe_model.gpus import DEVICE_HELP, GPU_MEMORY_HELP, check_flags
from moe_model.weights.load_flag import LOAD_HELP, parse_load
from moe_model.workspace import Steps
from rpc.config import max_rows_per_message
from rpc.process.flags import flag
from rpc.process.service_config import MemberConfig, check_choice
from rpc.process.sizes import MemoryBudget, parse_bytes

KV_DTYPES = ("auto", "bf16", "int8")
TRANSPORTS = ("grpc", "in_process")
LEAST = {
    "max_running": 1,
    "max_waiting": 1,
    "max_waiting_tokens": 1,
    "max_batch_tokens": 0,
    "max_model_len": 0,
    "threads": 0,
    "stall_s": 0,
}
"""The smallest value of each of these flags."""
AUTO_KV_BYTES = 512 * 2**20
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 512, 2048
"""Rows of a step where --max-batch-tokens is 0. A long chunk reads nearly all experts, which takes
a GPU as long as it takes to compute hundreds of rows."""
BLOCK_SIZE = 16
"""Positions per KV block."""


def most_positions(max_running: int, longest: int) -> int:
    """Of all sequences that run at once, at their longest; more would only be kept prefixes."""
    return -(-longest // BLOCK_SIZE) * BLOCK_SIZE * max_running


def largest_steps(
    model: ModelConfig,
    *,
    max_batch_tokens: int,
    max_running: int,
    max_model_len: int,
    kv_host_bytes: int,
    on_gpu: bool,
    in_process: bool,
) -> Steps:
    """For these flags. No step has more rows than a message to a pool, where there are any."""
    rows = max_batch_tokens or (GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS)
    if not in_process:
        rows = min(rows, max_rows_per_message(model.hidden_size, model.top_k))
    return Steps(
        rows=rows,
        decode_rows=min(max_running, rows),
        positions=max_model_len,
        has_host_blocks=bool(kv_host_bytes),
    )


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(MemberConfig):
    """Flags of `python -m attention_svc`; see `--help`."""

    model: Path = flag(Path("."), "checkpoint folder")
    load: str = flag("", LOAD_HELP, metavar="random:SEED")
    attention_id: str = flag(
        "", "unique name of this service (default: attention-<host name>-<port>)"
    )
    listen: str = flag("127.0.0.1:50051", "address to serve gRPC on", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:50061", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    router: str = flag("", "router to join and to watch for pools", metavar="HOST:PORT")
    transport: str = flag("grpc", "grpc: remote pools; in_process: all experts in this process")
    dtype: str = flag("auto", f"compute dtype: {', '.join(DTYPE_CHOICES)}")
    linear_dtype: str = flag(
        "auto", f"attention's matrices and the LM head as held: {', '.join(CHOICES)}"
    )
    expert_dtype: str = flag(
        "auto", f"experts as held, with --transport in_process: {', '.join(CHOICES)}"
    )
    device: str = flag("auto", DEVICE_HELP)
    gpu_memory: float = flag(0.9, GPU_MEMORY_HELP)
    kv_memory: str = flag(
        "auto",
        "KV cache: a size, or a share of what the weights leave, like 30% (auto: 512MiB on a CPU,"
        " on a GPU all that --gpu-memory leaves)",
    )
    kv_dtype: str = flag("auto", f"format of keys and values: {', '.join(KV_DTYPES)}")
    kv_host_memory: str = flag(
        "0",
        "host memory for KV blocks that the prefix cache has to give up, which are read back where"
        " that is cheaper than computing them again: a size like 8GiB (0: none)",
    )
    no_prefix_cache: bool = flag(False, "compute every prompt in full and share no KV blocks")
    max_model_len: int = flag(0, "longest sequence in tokens (0: the model's)")
    max_running: int = flag(64, "most sequences in one step")
    max_waiting: int = flag(256, "most sequences waiting; more are refused")
    max_waiting_tokens: int = flag(2_000_000, "most prompt tokens waiting; more are refused")
    max_batch_tokens: int = flag(
        0,
        "most rows in one step; longer prompts are cut into chunks"
        f" (0: {GPU_BATCH_TOKENS} on a GPU, {CPU_BATCH_TOKENS} on a CPU)",
    )
    request_timeout_s: float = flag(
        0.0, "time limit of requests that name none themselves, waiting included; 0: no limit"
    )
    expert_timeout_s: float = flag(
        600.0,
        "longest wait of a request for experts that no pool answers for, retries included",
    )
    stall_s: float = flag(
        120.0, "the service is unready when a step has made no progress for so long (0: never)"
    )
    same_numerics: bool = flag(
        False, "use only pools of one numerics_id, the one whose pools hold most"
    )
    threads: int = flag(0, "threads of the kernels and of torch (0: all cores)")
    grace_s: float = flag(30.0, "seconds running requests get after SIGTERM")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in read_flags(self).items():
            object.__setattr__(self, name, value)
        parse_load(self.load)
        check_choice("--kv-dtype", self.kv_dtype, KV_DTYPES)
        if self.transport == "grpc" and self.expert_dtype != "auto":
            raise ValueError("--expert-dtype is for --transport in_process: pools have their own")
        check_choice("--transport", self.transport, TRANSPORTS)
        if self.transport == "grpc" and not self.router:
            raise ValueError("--transport grpc needs --router, which knows the expert pools")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}")
        if not 0 <= self.request_timeout_s < math.inf:
            raise ValueError("--request-timeout-s must be 0 (no limit) or more, and finite")
        if not self.expert_timeout_s > 0:
            raise ValueError("--expert-timeout-s must be more than 0")
        check_flags(self.device, self.gpu_memory)
        if self.kv_memory != "auto":
            MemoryBudget.parse(self.kv_memory, "--kv-memory")
        if self.kv_host_bytes and self.no_prefix_cache:
            raise ValueError("--kv-host-memory is for the prefix cache: not with --no-prefix-cache")

    def steps(self, model: ModelConfig, *, on_gpu: bool) -> Steps:
        """The largest ones."""
        return largest_steps(
            model,
            max_batch_tokens=self.max_batch_tokens,
            max_running=self.max_running,
            max_model_len=self.max_model_len,
            kv_host_bytes=self.kv_host_bytes,
            on_gpu=on_gpu,
            in_process=self.transport == "in_process",
        )

    @property
    def kv_host_bytes(self) -> int:
        return read_kv_host_memory(self.kv_host_memory)

    def kv_budget(self, *, on_gpu: bool) -> MemoryBudget | None:
        """None: all that there is."""
        if self.kv_memory != "auto":
            return MemoryBudget.parse(self.kv_memory, "--kv-memory")
        return None if on_gpu else MemoryBudget(size_bytes=AUTO_KV_BYTES)


def read_kv_host_memory(text: str) -> int:
    """Bytes. Raises ValueError naming --kv-host-memory."""
    return 0 if text.strip() == "0" else parse_bytes(text, "--kv-host-memory") or 0
