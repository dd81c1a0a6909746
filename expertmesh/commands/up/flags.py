"""How do the flags of the services become options of `expertmesh up`?"""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from expertmesh.cluster.cluster_plan import DEFAULTS
from expertmesh.cluster.service_flags import DECIDED, Passable, Values, passable, short_name
from expertmesh.console import EXIT_USAGE, CommandError, stderr
from rpc.process.flags import env_name, option_name

SERVICES = {
    "gateway": "the gateway",
    "attention_svc": "attention services",
    "expert_svc": "expert pools",
    "router_svc": "the router",
}
HELP = {
    "device": "where to compute: auto, cpu, cuda (all GPUs) or a list like cuda:0,cuda:1; auto is "
    "the GPUs, as above, or else the CPU, and the plan says why"
}
"""Of flags that mean more here than to one service."""
SHOWN_APART = ("device",)
"""Flags of several services whose forms for one of them are in the help, too."""
NEVER_IN_PROCESS = ("expert_svc", "router_svc")


def with_service_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add them to `command`, which gets the given ones as `passed`, and the typer.Context."""
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "passed"]
    taken = {one.name for one in own}
    options = {one.name: one for one in passable(taken)}
    decided = {f"decided_{name}": name for name in DECIDED if name not in taken}
    added = [
        _parameter(one.name, list[str] if one.flag.is_list else one.flag.kind | None, _option(one))
        for one in options.values()
    ]
    added += [
        _parameter(parameter, str | None, typer.Option(None, option_name(name), hidden=True))
        for parameter, name in decided.items()
    ]
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]

    @wraps(command)
    def run(context: typer.Context, **given: Any) -> None:
        for parameter, name in decided.items():
            if given.pop(parameter) is not None:
                raise CommandError(
                    f"{option_name(name)}: `up` decides it itself: {DECIDED[name]}", EXIT_USAGE
                )
        values = {name: _value(context, one, given.pop(name)) for name, one in options.items()}
        context.params.update(values)  # `up --detach` starts itself again with them
        values = {name: value for name, value in values.items() if value not in (None, [])}
        absent = NEVER_IN_PROCESS if given["in_process"] else ()
        _check_unused(context, [options[name] for name in values], absent)
        command(context=context, passed=_by_module(options, values, absent), **given)

    # Typer reads options from the signature and their types from the annotations.
    run.__signature__ = inspect.Signature(keyword + added)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in keyword + added}
    return run


def _value(context: typer.Context, one: Passable, value: Any) -> Any:
    """The given value; a list from the environment is split at commas, as services do."""
    if one.flag.is_list and _is_from_environment(context, one):
        return [part.strip() for part in os.environ[one.env].split(",") if part.strip()]
    return value


def _is_from_environment(context: typer.Context, one: Passable) -> bool:
    source = context.get_parameter_source(one.name)
    return source is not None and source.name == "ENVIRONMENT"


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=option)


def _option(one: Passable) -> Any:
    name = one.option
    if one.flag.kind is bool and not one.flag.name.startswith("no_"):
        name += "/--no-" + one.option.removeprefix("--")
    default = DEFAULTS.get(one.flag.name, one.flag.default)
    shown = "" if default in (None, (), "", False) else f" Default: {default}."
    *first, last = [SERVICES[module] for module in one.modules]
    of = f"{', '.join(first)} and {last}" if first else last
    explained = HELP.get(one.flag.name, one.flag.help)
    text = f"{of}: {explained}" if one.is_shared or one.of_one else explained
    return typer.Option(
        [] if one.flag.is_list else None,
        name,
        envvar=one.env,
        hidden=one.of_one and one.flag.name not in SHOWN_APART,
        help=f"{text[0].upper()}{text[1:]}.{shown}",
        show_default=False,
        rich_help_panel="Passed on to several services" if one.is_shared else f"Passed on to {of}",
    )


def _by_module(
    options: dict[str, Passable], values: dict[str, Any], absent: tuple[str, ...]
) -> Values:
    """The values of each service: its own flag wins over the one shared by several."""
    passed: dict[str, dict[str, Any]] = {}
    for of_one in (False, True):
        for name, value in values.items():
            one = options[name]
            for module in one.modules if one.of_one == of_one else ():
                if module not in absent:
                    passed.setdefault(module, {})[one.flag.name] = value
    return passed


def _check_unused(context: typer.Context, given: list[Passable], absent: tuple[str, ...]) -> None:
    """Refuse flags that can have no effect; for names in the environment print a note."""
    unused = {
        env_name(name): reason for name, reason in DECIDED.items() if env_name(name) in os.environ
    }
    for one in given:
        if all(module in absent for module in one.modules):
            who = short_name(one.modules[0])
            reason = f"with --in-process there is no {who} service"
            if not _is_from_environment(context, one):
                raise CommandError(f"{one.option}: {reason}", EXIT_USAGE)
            unused[one.env] = reason
    for name, reason in unused.items():
        stderr().print(
            f"expertmesh: {name} has no effect on `up`: {reason}", markup=False, soft_wrap=True
        )
