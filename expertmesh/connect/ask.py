"""What does a server say of itself? Its model, its context, and whether it wants a key."""

from dataclasses import dataclass
from typing import Any

import httpx

from expertmesh.clients.chat import CONNECT_TIMEOUT_S, error_message, server_root
from expertmesh.console import EXIT_FAILED, EXIT_NOT_RUNNING, EXIT_USAGE, CommandError

ANSWER_TIMEOUT_S = 20.0
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


@dataclass(frozen=True)
class Served:
    """What a server says."""

    model: str
    context: int | None
    """Tokens of prompt and answer together; None where it does not say."""
    wants_key: bool


def ask(base_url: str, api_key: str | None, model: str | None) -> Served:
    """Of the model with this name, or the first. The key is shown to nobody who does not ask for
    one. Raises CommandError."""
    root = server_root(base_url)
    try:
        with httpx.Client(
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S), trust_env=False
        ) as client:
            answer = client.get(f"{root}/v1/models")
            wants_key = answer.status_code in (401, 403)
            if wants_key:
                if not api_key:
                    raise CommandError(
                        f"{root} wants an API key: give it in EXPERTMESH_API_KEY or with "
                        "--api-key-file",
                        EXIT_USAGE,
                    )
                bearer = {"Authorization": f"Bearer {api_key}"}
                answer = client.get(f"{root}/v1/models", headers=bearer)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise CommandError(
            f"nothing answers at {root} ({str(error) or type(error).__name__}); start it, give "
            "--base-url, or go on without it: --offline with --model-name and --context",
            EXIT_NOT_RUNNING,
        ) from None
    if answer.status_code != 200:
        code = EXIT_NOT_RUNNING if answer.status_code == 503 else EXIT_FAILED
        told = f"{root} answered {answer.status_code}: {error_message(answer)}"
        raise CommandError(told, code)
    one = _chosen(root, answer, model)
    lengths = (one.get(name) for name in _CONTEXT_FIELDS)
    context = next((n for n in lengths if type(n) is int and n > 0), None)
    return Served(str(one["id"]), context, wants_key)


def _chosen(root: str, answer: httpx.Response, model: str | None) -> dict[str, Any]:
    try:
        models = {str(one["id"]): one for one in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{root}/v1/models: no list of models") from None
    if not models:
        raise CommandError(f"{root} lists no model", EXIT_NOT_RUNNING)
    if model is None:
        return dict(next(iter(models.values())))
    if model not in models:
        raise CommandError(
            f"--model-name: {root} has no {model!r}, but {', '.join(models)}", EXIT_USAGE
        )
    return dict(models[model])
