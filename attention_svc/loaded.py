"""What is known once the checkpoint is open, before any weights are read?"""

import logging
from collections.abc import Callable
from functools import partial

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.kv.budget import count_blocks, count_host_slots, need_on, why_too_small
from attention_svc.vocabulary import Vocabulary
from moe_model.backends.choice import choose_backend
from moe_model.gpus import Gpus, read_gpus, use
from moe_model.memory_need import gib
from moe_model.numerics import DTYPES
from moe_model.weights.held_formats import HeldFormats, held_formats
from moe_model.weights.load_flag import parse_load
from moe_model.weights.open import make_on, open_weights, require_kernels, verify_attention
from moe_model.weights.place import choose_place
from rpc.process.load_progress import LoadProgress

log = logging.getLogger(__name__)


class LoadedModel:
    """A checked checkpoint, and the formats, device and sizes to serve it with."""

    def __init__(self, config: AttentionConfig, *, gpus: Callable[[], Gpus] = read_gpus):
        """Opens and checks the checkpoint. Raises ValueError with a one-line reason."""
        self._flags = config
        self.weights, manifest = open_weights(
            config.model, partial=config.transport == "grpc", load=parse_load(config.load)
        )
        self.config = self.weights.config
        self.vocabulary = Vocabulary.load(config.model, self.config)
        place = self.place = choose_place(
            config.device,
            self._formats_on,
            partial(why_too_small, config, self.config),
            read=gpus,
        )
        log.info("computing on %s", place)
        make_on(self.weights, place.device)
        verify_attention(self.weights, manifest)
        self.checkpoint_id = manifest.checkpoint_id
        formats = self.formats = place.formats
        use(place.device)
        self.backend = choose_backend(DTYPES[formats.compute_dtype], place.device)
        require_kernels(self.weights, self.backend)
        self.num_threads = self.backend.set_threads(config.threads)
        self.kernel = self.backend.numerics(formats.linears)
        limit = self.config.max_position_embeddings
        if config.max_model_len > limit:
            raise ValueError(f"--max-model-len {config.max_model_len} exceeds the model's {limit}")
        self.layout = self.backend.kv_layout(config.kv_dtype, self.config, BLOCK_SIZE)
        self.num_blocks = count_blocks(config, self.config, self.layout, place)
        self.num_host_slots = count_host_slots(
            config, self.config, self.layout, place, self.num_blocks
        )
        need = self._need = need_on(config, self.config, formats, place.device)
        positions = f"{self.num_blocks * BLOCK_SIZE:,}"
        log.info("memory on %s: %s; KV cache for %s positions", place.device, need, positions)
        steps = self.steps = config.steps(self.config, on_gpu=place.gpu is not None)
        log.info(
            "steps of at most %d rows (--max-batch-tokens) and %d sequences (--max-running)",
            steps.rows,
            steps.decode_rows,
        )
        self.loading = LoadProgress(need.weights)
        # A sequence longer than the cache could never run.
        self.max_len = min(config.max_model_len or limit, self.num_blocks * BLOCK_SIZE)

    def memory_lines(self, used: int, tensors: int, kept: int) -> list[str]:
        """What is in use on the device once all is there, by anyone, beside what was counted.

        Args:
            tensors, kept: see torch_bytes.
        """
        workspace = self._need.workspace
        held = self._need.weights + self.num_blocks * BLOCK_SIZE * self._need.kv_position
        outside = max(0, used - tensors - kept)
        return [
            f"in use on {self.place.device}: {gib(used)}, of which {gib(max(0, used - held))} "
            f"beside weights, keys and values; {gib(workspace.size)} were counted",
            f"of that, libraries, kernels and other processes {gib(outside)}, "
            f"{gib(workspace.outside_torch)} were counted; tensors "
            f"{gib(max(0, tensors - held))} and torch's allocator {gib(kept)}, together "
            f"{gib(workspace.size - workspace.outside_torch)} were counted",
        ]

    def _formats_on(self, device: str) -> HeldFormats:
        flags = self._flags
        return held_formats(
            flags.model,
            self.config,
            dtype=flags.dtype,
            expert_dtype=flags.expert_dtype,
            linear_dtype=flags.linear_dtype,
            device=device,
        )
