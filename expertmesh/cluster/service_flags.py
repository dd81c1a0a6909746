"""How does `up` pass flags on to the services?

The services' configs list their flags. Each becomes an option of `up`, with the same name and
environment variable, and goes to every service that has it; prefixed with a service's name
(`--attention-device`) it goes to that service only. Flags that `up` sets itself are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attention_svc.config import AttentionConfig
from expert_svc.config import ExpertConfig
from expertmesh.console import EXIT_USAGE, CommandError, command_errors
from gateway.config import GatewayConfig
from router_svc.config import RouterConfig
from rpc.process.flags import Flag, check_config, env_name, flags_of, option_name

CONFIGS: dict[str, type] = {
    "gateway": GatewayConfig,
    "attention_svc": AttentionConfig,
    "expert_svc": ExpertConfig,
    "router_svc": RouterConfig,
}
"""Module -> its config class."""

_LOOPBACK = (
    "its services talk over 127.0.0.1 only (docs/several-machines.md is about several machines)"
)
DECIDED = {
    "attention": "--attention (EXPERTMESH_UP_ATTENTION) sets their number",
    "listen": "--http-port sets the API's port, the other services take free ports",
    "ops_listen": "services take free ports, which `expertmesh status` shows",
    "advertise": _LOOPBACK,
    "router": "`up` starts its own",
    "transport": "--in-process sets it",
    "attention_id": "it names the services itself, as `expertmesh status` shows them",
    "pool_id": "it names the pools itself, as `expertmesh status` shows them",
    "layers": "--pool-layers, --pools and --replicas decide which pool holds what",
    "experts": "--pools and --replicas decide which pool holds what",
    "tls_ca": _LOOPBACK,
    "tls_cert": _LOOPBACK,
    "tls_key": _LOOPBACK,
    "secret_file": "each run makes its own secret, in its run folder",
    "insecure": _LOOPBACK,
    "insecure_no_auth": _LOOPBACK,
}
"""Flags of services that `up` sets itself, and why or what to use instead."""

Values = Mapping[str, Mapping[str, Any]]
"""Module -> field -> value, as given to `up`."""


@dataclass(frozen=True, kw_only=True)
class Passable:
    """One option of `up` that is passed on."""

    name: str
    """A Python name: `device`, `attention_device`."""
    flag: Flag
    modules: tuple[str, ...]
    """The services that get it."""
    is_shared: bool = False
    """Several services have it."""
    of_one: bool = False
    """It sets a flag that several services have for one of them."""

    @property
    def option(self) -> str:
        return option_name(self.name)

    @property
    def env(self) -> str:
        return env_name(self.name)


def passable(taken: Iterable[str]) -> list[Passable]:
    """The options to pass on; `taken`: names of `up`'s own options."""
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
    """The service's name in `expertmesh serve NAME`."""
    return module.removesuffix("_svc")


@dataclass(frozen=True, kw_only=True)
class Passed:
    """Values for one service: on its command line, secrets in its environment."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def passed_to(module: str, values: Values) -> Passed:
    """Raises CommandError (usage) for a secret that an environment variable cannot hold."""
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
            raise CommandError(f"{one.option}: must not contain a comma with `up`", EXIT_USAGE)
        else:
            environment[env_name(one.name)] = ",".join(value)
    return Passed(arguments=tuple(arguments), environment=environment)


def secrets() -> list[Flag]:
    """The flags whose values must not be on a command line."""
    return [one for config in CONFIGS.values() for one in flags_of(config) if one.is_secret]


def check_service(module: str, argv: Iterable[str], environment: Mapping[str, str]) -> Any:
    """The config that the service will have. Raises CommandError (usage) naming a bad flag."""
    with command_errors(EXIT_USAGE):
        return check_config(CONFIGS[module], list(argv), environment)
