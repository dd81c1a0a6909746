"""With which flags does a command of an assistant say which model it asks, and how?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from expertmesh.clients.asked_server import API_KEY, BASE_URL, MODEL_NAME, THINKING
from expertmesh.clients.chat import client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.clients.transcript import Thinking
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.commands.shared_flags import with_flags

_TEMPERATURE = typer.Option(
    None, envvar="EXPERTMESH_TEMPERATURE", help="0: greedy. Default: the checkpoint's."
)
_MAX_TOKENS = typer.Option(
    None, envvar="EXPERTMESH_MAX_TOKENS", help="Most tokens in one answer of the model."
)
_FLAGS: dict[str, tuple[Any, Any]] = {
    "base_url": (str | None, BASE_URL),
    "run_dir": (Path | None, RUN_DIR),
    "api_key": (str | None, API_KEY),
    "api_key_file": (Path | None, API_KEY_FILE),
    "model": (str | None, MODEL_NAME),
    "thinking": (Thinking, THINKING),
    "temperature": (float | None, _TEMPERATURE),
    "max_tokens": (int | None, _MAX_TOKENS),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which server, as whom, for which model, with which sampling."""

    base_url: str
    api_key: str | None = None
    model: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of each chat request besides the messages: temperature, max_tokens."""
    thinking: Thinking = Thinking.FOLDED


def asks_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is an `Asked`, the flags that fill it."""
    return with_flags(command, _FLAGS, _asked)


def _asked(
    base_url: str | None,
    run_dir: Path | None,
    api_key: str | None,
    api_key_file: Path | None,
    model: str | None,
    thinking: Thinking,
    **sampling: Any,
) -> Asked:
    """Sampling that is not given is the server's. Raises CommandError."""
    return Asked(
        base_url=base_url or running_url(run_dir) or DEFAULT_URL,
        api_key=client_key(api_key, api_key_file),
        model=model,
        sampling={name: value for name, value in sampling.items() if value is not None},
        thinking=thinking,
    )
