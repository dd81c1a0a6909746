"""How does every flag of every service reach it through `up`?

The services' own configs say which flags there are. Each becomes an option of `up`, with the same
name and environment twin, and goes to every service that has it; with the service's name before it
(`--attention-device`) to that service alone. Flags that `up` decides itself are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attention_svc.config import AttentionConfig
from expert_svc.config import ExpertConfig
from expertmesh.console import EXIT_USAGE, CommandError
from gateway.config import GatewayConfig
from router_svc.config import RouterConfig
from rpc.process.flags import Flag, check_config, env_name, flags_of, option_name

CONFIGS: dict[str, type] = {
    "gateway": GatewayConfig,
    "attention_svc": AttentionConfig,
    "expert_svc": ExpertConfig,
    "router_svc": RouterConfig,
}
"""Module -> its config."""

_LOOPBACK = (
    "everything that `up` starts talks over 127.0.0.1 (docs/several-machines.md has the rest)"
)
DECIDED = {
    "attention": "--attention (EXPERTMESH_UP_ATTENTION) says how many there are",
    "listen": "--http-port is the API's port, the other services take free ones",
    "ops_listen": "services take free ports, which `expertmesh status` shows",
    "advertise": _LOOPBACK,
    "router": "`up` starts its own",
    "transport": "--in-process says it",
    "attention_id": "services are named as `expertmesh status` shows them",
    "pool_id": "pools are named as `expertmesh status` shows them",
    "layers": "--pools and --replicas say who holds what",
    "experts": "--pools and --replicas say who holds what",
    "tls_ca": _LOOPBACK,
    "tls_cert": _LOOPBACK,
    "tls_key": _LOOPBACK,
    "secret_file": "each run makes a secret of its own, in its run folder",
    "insecure": _LOOPBACK,
    "insecure_no_auth": _LOOPBACK,
}
"""Flags of services that `up` sets, and what says it instead."""

Values = Mapping[str, Mapping[str, Any]]
"""Module -> field -> value, as given to `up`."""


@dataclass(frozen=True, kw_only=True)
class Passable:
    """One option of `up` that is passed on."""

    name: str
    """As a Python name: `device`, `attention_device`."""
    flag: Flag
    modules: tuple[str, ...]
    """Who gets it."""
    is_shared: bool = False
    """Several services have it."""
    of_one: bool = False
    """It is the form for one service of a flag that several have."""

    @property
    def option(self) -> str:
        return option_name(self.name)

    @property
    def env(self) -> str:
        return env_name(self.name)


def passable(taken: Iterable[str]) -> list[Passable]:
    """What is passed on, given the names that are `up`'s own options."""
    by_name: dict[str, dict[str, Flag]] = {}
    for module, config in CONFIGS.items():
        for one in flags_of(config):
            if one.name not in DECIDED and one.name not in taken:
                by_name.setdefault(one.name, {})[module] = one
    found = []
    for name, owners in by_name.items():
        first = next(iter(owners.values()))
        shared = len(owners) > 1
        found.append(Passable(name=name, flag=first, modules=tuple(owners), is_shared=shared))
        for module, one in owners.items() if shared else ():
            prefixed = f"{short_name(module)}_{name}"
            found.append(Passable(name=prefixed, flag=one, modules=(module,), of_one=True))
    return found


def short_name(module: str) -> str:
    """As in `expertmesh serve NAME`."""
    return module.removesuffix("_svc")


@dataclass(frozen=True, kw_only=True)
class Passed:
    """How one service is told: by its command line, secrets by its environment."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def passed_to(module: str, values: Values) -> Passed:
    """Raises CommandError (usage) for a secret that no environment variable can hold."""
    given = values.get(module, {})
    arguments: list[str] = []
    environment: dict[str, str] = {}
    for one in flags_of(CONFIGS[module]):
        if one.name not in given:
            continue
        value = given[one.name]
        if not one.is_secret:
            arguments += one.arguments(value)
        elif any("," in text for text in value):
            raise CommandError(f"{one.option}: `up` passes on none with a comma in it", EXIT_USAGE)
        else:
            environment[env_name(one.name)] = ",".join(value)
    return Passed(arguments=tuple(arguments), environment=environment)


def secrets() -> list[Flag]:
    """The flags that do not belong on a command line."""
    return [one for config in CONFIGS.values() for one in flags_of(config) if one.is_secret]


def check_service(module: str, argv: Iterable[str], environment: Mapping[str, str]) -> Any:
    """The config that the service will have. Raises CommandError (usage) naming the flag."""
    try:
        return check_config(CONFIGS[module], list(argv), environment)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from None
