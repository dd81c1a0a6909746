"""Which pools are there, which layers does each hold, and which --device does each service get?

1. `--pool-layers`: as it says, a pool for each.
2. `--pools` or `--replicas`, several attention services, or no GPU: equal shares, layer-striped.
   Pool i of N holds the layers l with l mod N = i; devices are dealt out later (devices.py).
3. Else a pool on each card with as many whole layers as it holds (card_layers.py), and one on the
   CPU with those that are left. A card that holds everything needs no pools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from attention_svc.config import AttentionConfig
from expertmesh.cluster.card_layers import Contents, share_layers
from expertmesh.cluster.devices import listed
from expertmesh.cluster.found_gpus import FoundGpus
from expertmesh.cluster.options import ClusterOptions, attention_names
from moe_model.config import ModelConfig
from moe_model.memory_need import Room
from rpc.mesh.pieces import parse_ranges

DEFAULT_POOLS = 2
_LISTS = ("auto", "cuda")
"""Values of --device that stand for all GPUs."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`devices`: service -> --device. `layers`: of each pool; none where the router decides."""

    devices: Mapping[str, str]
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    in_process: bool = False

    @property
    def pools(self) -> list[str]:
        return [] if self.in_process else list(self.layers)


def flagged_layout(options: ClusterOptions, config: ModelConfig) -> Layout:
    """As flags say it, or in equal shares. Raises ValueError naming --pool-layers or --pools."""
    if options.in_process and options.pool_layers:
        raise ValueError("--pool-layers: with --in-process there are no pools")
    num_pools = options.num_pools or min(DEFAULT_POOLS, config.num_layers)
    shares: Sequence[tuple[int, ...]]
    if options.pool_layers:
        shares = _named_shares(options, config.num_layers)
    elif options.replicas:
        shares = [()] * num_pools
    else:
        shares = [stripe(config.num_layers, num_pools, pool) for pool in range(num_pools)]
    layers = {} if options.in_process else pools_of(shares)
    attention, experts = asked_devices(options)
    devices = dict.fromkeys(attention_names(options), attention) | dict.fromkeys(layers, experts)
    return Layout(devices=devices, layers=layers, in_process=options.in_process)


def pools_of(shares: Sequence[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Pools are numbered in the order of their layers."""
    return {f"pool-{index}": share for index, share in enumerate(shares)}


def stripe(num_layers: int, num_pools: int, pool: int) -> tuple[int, ...]:
    """The layers of one pool."""
    return tuple(range(pool, num_layers, num_pools))


def asked_devices(options: ClusterOptions) -> tuple[str, str]:
    """--device of attention and of pools."""
    attention = options.passed.get("attention_svc", {}).get("device", "auto")
    return attention, options.passed.get("expert_svc", {}).get("device", "auto")


def follows_cards(options: ClusterOptions) -> bool:
    """Whether no flag decides which pools there are."""
    decided = options.in_process or options.replicas or options.pool_layers
    return not decided and options.num_pools is None and options.num_attention == 1


def card_layout(
    options: ClusterOptions, contents: Contents, found: FoundGpus, share: float
) -> Layout | None:
    """By what cards hold; None where no card is asked for, or attention does not fit for `auto`.

    `share`: --gpu-memory. Raises ValueError naming a device that is not there, or an
    --expert-device with too little room.
    """
    asked, asked_of_pools = asked_devices(options)
    if "auto" in (asked, asked_of_pools) and _why_not_auto(contents, found):
        return None
    attention = listed(asked, found.gpus, auto_to_cpu=False)[0]
    devices = listed(asked_of_pools, found.gpus, auto_to_cpu=False)
    cards = [one for one in dict.fromkeys(devices) if one != "cpu"]
    if not cards:
        return None
    has_attention = attention in cards
    if has_attention:
        cards = [attention, *(one for one in cards if one != attention)]
    rooms = [_room(found, card, share).size for card in cards]
    if "auto" in (asked, asked_of_pools) and not _has_room(contents, found, attention, share):
        return None
    shares = share_layers(
        contents,
        rooms,
        has_attention=has_attention,
        may_join=asked == asked_of_pools and not _is_for_pools(options),
    )
    (name,) = attention_names(options)
    if shares.in_process:
        return Layout(devices={name: attention}, in_process=True)
    is_bound = asked != asked_of_pools and asked_of_pools not in _LISTS and "cpu" not in devices
    if shares.left_layers and is_bound:
        held = contents.config.num_layers - shares.left_layers
        raise ValueError(
            f"--expert-device {asked_of_pools}: holds {held} of {contents.config.num_layers} "
            f"layers in {contents.experts}; add cpu to the list, name more GPUs, or use a smaller "
            "--expert-dtype"
        )
    counts = [*zip(cards, shares.layers, strict=True), ("cpu", shares.left_layers)]
    first, held_by = 0, []
    for device, count in counts:
        if count:
            held_by.append((device, tuple(range(first, first + count))))
        first += count
    layers = pools_of([share for _, share in held_by])
    on = dict(zip(layers, (device for device, _ in held_by), strict=True))
    return Layout(devices={name: attention, **on}, layers=layers)


def layers_text(layers: Sequence[int]) -> str:
    """As --layers takes them: 0-26, or 0,2,4."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and parts[-1][-1] == layer - 1:
            parts[-1][1:] = [layer]
        else:
            parts.append([layer])
    return ",".join("-".join(map(str, part)) for part in parts)


def _named_shares(options: ClusterOptions, num_layers: int) -> list[tuple[int, ...]]:
    named = [parse_ranges(text, "--pool-layers", num_layers) for text in options.pool_layers]
    if options.replicas:
        raise ValueError("--pool-layers: with --replicas the router decides which pool holds what")
    if options.num_pools not in (None, len(named)):
        raise ValueError(
            f"--pool-layers: given {len(named)} times, with --pools {options.num_pools}"
        )
    every = [layer for share in named for layer in share]
    twice = sorted({layer for layer in every if every.count(layer) > 1})
    missing = sorted(set(range(num_layers)) - set(every))
    if twice:
        raise ValueError(f"--pool-layers: several pools with layers {layers_text(twice)}")
    if missing:
        raise ValueError(f"--pool-layers: no pool with layers {layers_text(missing)}")
    return named


def _why_not_auto(contents: Contents, found: FoundGpus) -> str:
    usable = [one for one in found.gpus.found if not one.problem]
    return found.gpus.why_no_kernels(contents.compute_dtype, usable[0] if usable else None)


def _room(found: FoundGpus, device: str, share: float) -> Room:
    return Room(gpu=found.gpus.at(device), share=share, free=found.free.get(device, 0))


def _has_room(contents: Contents, found: FoundGpus, attention: str, share: float) -> bool:
    return attention == "cpu" or contents.attention.fixed <= _room(found, attention, share).size


def _is_for_pools(options: ClusterOptions) -> bool:
    """Whether flags are given that only pools or the router have: they ask for pools."""
    shared = {one.name for one in fields(AttentionConfig)}
    given = (options.passed.get(module, {}) for module in ("expert_svc", "router_svc"))
    return any(set(one) - shared for one in given)
