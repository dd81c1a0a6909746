"""How many bytes do the services take, on which device, and how large are the KV caches?"""

from collections import Counter
from functools import cache

from attention_svc.config import (
    AUTO_KV_BYTES,
    BLOCK_SIZE,
    AttentionConfig,
    most_positions,
    read_kv_host_memory,
)
from expertmesh.cluster.devices import place
from expertmesh.cluster.found_gpus import FoundGpus
from expertmesh.cluster.options import ClusterOptions, attention_names, pool_names, stripe
from expertmesh.console import EXIT_USAGE, command_errors
from moe_model.config import ModelConfig
from moe_model.memory_need import MemoryNeed, attention_need, pool_need
from moe_model.weights.held_formats import HeldFormats, held_formats
from rpc.process.memory import available_memory_bytes
from rpc.process.sizes import MemoryBudget

HELD_FACTOR = 1.05
"""Allocator overhead on top of weights and KV, on CPUs."""


class Sizing:
    """`devices`: by service. `kv`: bytes of each attention service. `why`: it is no GPU."""

    def __init__(self, config: ModelConfig, options: ClusterOptions, found: FoundGpus):
        """Raises CommandError (usage) naming a flag that cannot be met."""
        self._config, self._options = config, options
        self._attentions = attention_names(options)
        self._pools = pool_names(options)
        self._formats = cache(self._read_formats)
        given = options.passed.get("attention_svc", {}), options.passed.get("expert_svc", {})
        wanted = {name: given[0].get("device", "auto") for name in self._attentions}
        wanted |= {name: given[1].get("device", "auto") for name in self._pools}
        with command_errors(EXIT_USAGE):
            compute_dtype = self._formats("cpu").compute_dtype
            self._position = self._need(self._attentions[0], "cpu").kv_position
            self._kv_host = read_kv_host_memory(given[0].get("kv_host_memory", "0"))
            auto = options.kv_memory == "auto"
            budget = None if auto else MemoryBudget.parse(options.kv_memory, "--kv-memory")
            least = budget.size_bytes if budget else self._position * BLOCK_SIZE
            placed = place(
                wanted,
                found,
                self._need,
                compute_dtype=compute_dtype,
                share=max(one.get("gpu_memory", AttentionConfig.gpu_memory) for one in given),
                kv_bytes=dict.fromkeys(self._attentions, least),
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
        if device != "cpu" and name in self._pools and self._options.replicas:
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
        if name in self._pools:
            layers = len(stripe(config.num_layers, options.num_pools, self._pools.index(name)))
            if options.replicas:
                layers = -(-config.num_layers * options.replicas // options.num_pools)
            return pool_need(
                config,
                formats.experts,
                device,
                num_pieces=layers * config.num_experts,
                most_in_a_layer=config.num_experts,
            )
        return attention_need(
            config,
            device,
            compute_dtype=formats.compute_dtype,
            linears=formats.linears,
            experts=formats.experts if options.in_process else "",
            kv_dtype=options.passed.get("attention_svc", {}).get("kv_dtype", "auto"),
        )

    def _on_gpu(self, budget: MemoryBudget | None, left: int, sharing: int) -> int:
        if budget is not None:
            return budget.of(left) // (sharing if budget.share else 1)
        given = self._options.passed.get("attention_svc", {})
        positions = most_positions(
            given.get("max_running", AttentionConfig.max_running),
            given.get("max_model_len", 0) or self._config.max_position_embeddings,
        )
        return min(left // sharing, positions * self._position)

    def _on_cpu(self, budget: MemoryBudget | None) -> int:
        if budget is None:
            return AUTO_KV_BYTES
        # A share is of what all services' weights leave, which no service alone can know.
        here = [name for name, device in self.devices.items() if device == "cpu"]
        weights = sum(self._need(name, "cpu").weights for name in here)
        free = available_memory_bytes() - int(HELD_FACTOR * weights)
        sharing = sum(name in self._attentions for name in here)
        return budget.of(free) // (sharing if budget.share else 1)
