"""How many bytes do the services take, on which device, and how large are the KV caches?"""

from collections import Counter
from functools import cache
from typing import Any

from attention_svc.config import (
    AUTO_KV_BYTES,
    BLOCK_SIZE,
    AttentionConfig,
    largest_steps,
    most_positions,
    read_kv_host_memory,
)
from expertmesh.cluster.card_layers import DEFAULT_POSITIONS, Contents
from expertmesh.cluster.devices import place
from expertmesh.cluster.found_gpus import FoundGpus
from expertmesh.cluster.layout import (
    Layout,
    asked_devices,
    card_layout,
    flagged_layout,
    follows_cards,
)
from expertmesh.cluster.options import ClusterOptions, attention_names
from expertmesh.console import EXIT_USAGE, command_errors
from moe_model.config import ModelConfig
from moe_model.formats import kv_position_bytes
from moe_model.memory_need import MemoryNeed, attention_need, pool_need
from moe_model.weights.held_formats import HeldFormats, held_formats
from moe_model.workspace import Steps
from rpc.config import max_rows_per_message
from rpc.process.memory import available_memory_bytes
from rpc.process.sizes import MemoryBudget

HELD_FACTOR = 1.05
"""Allocator overhead on top of weights and KV, on CPUs."""


class Sizing:
    """`layout`: which pools there are. `devices`: by service. `kv`: bytes of each attention
    service. `why`: it is no GPU."""

    def __init__(self, config: ModelConfig, options: ClusterOptions, found: FoundGpus):
        """Raises CommandError (usage) naming a flag that cannot be met."""
        self._config, self._options = config, options
        self._attentions = attention_names(options)
        self._formats = cache(self._read_formats)
        self._given = options.passed.get("attention_svc", {})
        shares = [
            options.passed.get(module, {}).get("gpu_memory", AttentionConfig.gpu_memory)
            for module in ("attention_svc", "expert_svc")
        ]
        with command_errors(EXIT_USAGE):
            compute_dtype = self._formats("cpu").compute_dtype
            self._position = kv_position_bytes(config, self._kv_dtype, compute_dtype)
            self._kv_host = read_kv_host_memory(self._asked("kv_host_memory"))
            auto = options.kv_memory == "auto"
            budget = None if auto else MemoryBudget.parse(options.kv_memory, "--kv-memory")
            self.layout = self._lay_out(found, max(shares), budget)
            placed = place(
                self.layout.devices,
                found,
                self._need,
                compute_dtype=compute_dtype,
                share=max(shares),
                kv_bytes=dict.fromkeys(
                    self._attentions, budget.size_bytes if budget else self._position * BLOCK_SIZE
                ),
                advice=self._advice(),
            )
        self.devices, self.why = placed.devices, placed.why
        self._has_gpus = bool(found.gpus.found)
        on_gpus = Counter(self.devices[name] for name in self._attentions)
        self.kv = {
            name: self._on_cpu(budget)
            if self.devices[name] == "cpu"
            else self._on_gpu(budget, placed.left[self.devices[name]], on_gpus[self.devices[name]])
            for name in self._attentions
        }

    def flags(self, name: str) -> tuple[str, ...]:
        """Of a service, about its device; none where there is no choice."""
        given = any("device" in one for one in self._options.passed.values())
        if not (self._has_gpus or given):
            return ()
        device = self.devices[name]
        limit: tuple[str, ...] = ()
        if device != "cpu" and name in self.layout.layers and self._options.replicas:
            # Else each pool would offer the router all of a card that it shares.
            limit = ("--memory", str(int(HELD_FACTOR * self._need(name, device).weights)))
        return ("--device", device, *limit)

    def held_bytes(self, name: str) -> int:
        """Weights, keys and values of a service, and what it needs beside them on a GPU."""
        return self._need(name, self.devices[name]).fixed + self.kv.get(name, 0)

    def host_bytes(self, name: str) -> int:
        """Of these, what is in this machine's own memory, and what evicted KV blocks may take."""
        held = self.held_bytes(name) if self.devices[name] == "cpu" else 0
        return held + (self._kv_host if name in self.kv else 0)

    def _advice(self) -> str:
        """What helps where a GPU is too small for what it was asked to hold."""
        smaller = "smaller formats (--expert-dtype, --linear-dtype), a smaller --kv-memory"
        if self._options.in_process:
            return f"{smaller}, or leave --in-process out: what does not fit goes to the CPU"
        if follows_cards(self._options):
            return f"{smaller}, or shorter and fewer sequences (--max-model-len, --max-running)"
        return f"{smaller}, more GPUs, --expert-device cpu, or leave --pools and the like out"

    def _lay_out(self, found: FoundGpus, share: float, budget: MemoryBudget | None) -> Layout:
        """By what cards hold, if no flag says otherwise. Raises ValueError."""
        options, layout = self._options, None
        if found.gpus.found and follows_cards(options):
            try:
                formats = self._formats("cuda")
            except ValueError:
                if "auto" not in asked_devices(options):
                    raise
                return flagged_layout(options, self._config)  # on CPUs, as `place` will say
            kv_bytes = min(DEFAULT_POSITIONS * self._position, self._most_kv_bytes)
            contents = Contents(
                config=self._config,
                experts=formats.experts,
                linears=formats.linears,
                kv_bytes=budget.size_bytes if budget and budget.size_bytes else kv_bytes,
                compute_dtype=formats.compute_dtype,
                kv_dtype=self._kv_dtype,
                steps=self._steps,
            )
            layout = card_layout(options, contents, found, share)
        return layout or flagged_layout(options, self._config)

    @property
    def _kv_dtype(self) -> str:
        return str(self._asked("kv_dtype"))

    @property
    def _steps(self) -> Steps:
        """The largest of an attention service on a GPU: on a CPU none are counted."""
        return largest_steps(
            self._config,
            max_batch_tokens=self._asked("max_batch_tokens"),
            max_running=self._asked("max_running"),
            max_model_len=self._asked("max_model_len"),
            kv_host_bytes=self._kv_host,
            on_gpu=True,
            in_process=self._options.in_process,
        )

    def _asked(self, name: str) -> Any:
        """Of a flag of attention services: what `up` was given, or its default."""
        return self._given.get(name, getattr(AttentionConfig, name))

    @property
    def _most_kv_bytes(self) -> int:
        """Of an attention service whose sequences are all at their longest."""
        positions = most_positions(
            self._asked("max_running"),
            self._asked("max_model_len") or self._config.max_position_embeddings,
        )
        return positions * self._position

    def _read_formats(self, device: str) -> HeldFormats:
        options = self._options
        return held_formats(
            options.model,
            self._config,
            dtype=options.dtype,
            expert_dtype=options.expert_dtype,
            linear_dtype=options.linear_dtype,
            device=device,
        )

    def _need(self, name: str, device: str) -> MemoryNeed:
        """Raises ValueError where a device does not hold the formats."""
        config, options = self._config, self._options
        formats = self._formats(device.partition(":")[0])
        if name in self.layout.layers:
            layers = len(self.layout.layers[name])
            if options.replicas:
                layers = -(-config.num_layers * options.replicas // len(self.layout.layers))
            return pool_need(
                config,
                formats.experts,
                device,
                num_pieces=layers * config.num_experts,
                most_in_a_layer=config.num_experts,
                most_rows=max_rows_per_message(config.hidden_size, config.top_k),
            )
        return attention_need(
            config,
            device,
            compute_dtype=formats.compute_dtype,
            linears=formats.linears,
            experts=formats.experts if self.layout.in_process else "",
            kv_dtype=self._kv_dtype,
            steps=self._steps,
        )

    def _on_gpu(self, budget: MemoryBudget | None, left: int, sharing: int) -> int:
        if budget is not None:
            return budget.of(left) // (sharing if budget.share else 1)
        return min(left // sharing, self._most_kv_bytes)

    def _on_cpu(self, budget: MemoryBudget | None) -> int:
        if budget is None:
            return AUTO_KV_BYTES
        # A share is of what all services' weights leave, which no service alone can know.
        here = [name for name, device in self.devices.items() if device == "cpu"]
        weights = sum(self._need(name, "cpu").weights for name in here)
        free = available_memory_bytes() - int(HELD_FACTOR * weights)
        sharing = sum(name in self._attentions for name in here)
        return budget.of(free) // (sharing if budget.share else 1)
