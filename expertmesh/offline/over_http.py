"""How does `LLM` use a running cluster? With token ids over the completions API."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from typing import Any

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from expertmesh.clients.http_body import BadAnswer
from expertmesh.clients.sse import HttpError, Server, post_stream
from expertmesh.offline.backend import Delta, Job
from expertmesh.offline.checks import GenerationFailed
from expertmesh.offline.metrics import Metric, read_metrics
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import Logprob
from moe_model.families.known import chat_format_with

DEFAULT_PARALLEL = 48
"""Below the gateway's own limit for one client (64)."""
TIMEOUT_S = 600.0
BUSY_STATUSES = (429, 503)
BUSY_PATIENCE_S = 120.0
"""How long to retry with a full or loading server before the request fails."""


class HttpBackend:
    """Use `open_over_http`."""

    def __init__(self, server: Server, api_key: str | None, model: str, entry: Mapping[str, Any]):
        """`entry`: the entry of `model` in the server's list of models."""
        self._server = server
        self._api_key = api_key
        self._model = model
        self._client = server.client(api_key, TIMEOUT_S)
        self._token_texts: dict[int, str] = {}
        self.max_model_len = int(entry.get("max_model_len") or 2**31)
        self.marker_ids: Mapping[str, int] = entry.get("marker_token_ids") or {}
        self.chat_format = chat_format_with(self.marker_ids)
        self.special_ids = frozenset(
            self.marker_ids[one] for one in self.chat_format.turn_markers if one in self.marker_ids
        )
        self.bos_token_id: int | None = entry.get("bos_token_id")
        self.eos_token_id: int | None = entry.get("eos_token_id")
        self.default_parallel = DEFAULT_PARALLEL
        # The server applies its checkpoint's defaults to what is None and so not sent.
        self.default_params = SamplingParams(
            temperature=None, top_p=None, top_k=None, repetition_penalty=None
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def encode(self, text: str, *, control_tokens: bool) -> list[int]:
        if control_tokens:
            raise ValueError("parse_control_tokens: not possible over HTTP; pass token ids instead")
        if not text:
            raise ValueError("prompt: must not be empty")
        return list((await self._ask("/tokenize", {"prompt": text}))["tokens"])

    async def render(
        self, messages: list[Any], tools: Sequence[Any], *, add_generation_prompt: bool = True
    ) -> list[int]:
        body = {
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            **({"tools": list(tools)} if tools else {}),
        }
        return list((await self._ask("/tokenize", body))["tokens"])

    async def decode(self, ids: Sequence[int]) -> str:
        return str((await self._ask("/detokenize", {"tokens": list(ids)}))["prompt"])

    async def metrics(self) -> list[Metric]:
        text = (await self._answered(self._client.get("/metrics"))).text
        return read_metrics(text_string_to_metric_families(text))

    async def reset_prefix_cache(self) -> bool:
        raise NotImplementedError(
            "reset_prefix_cache: not possible over HTTP, where other clients use the cache too; "
            "use an engine in this process"
        )

    async def stream(self, job: Job) -> AsyncGenerator[Delta, None]:
        if job.params.prompt_logprobs is not None:
            raise ValueError(
                "prompt_logprobs: not possible over HTTP; use an engine in this process"
            )
        body = orjson.dumps(self._body(job))
        deadline_s = time.monotonic() + BUSY_PATIENCE_S
        while True:
            try:
                async with contextlib.aclosing(self._answer(job, body)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except HttpError as error:
                busy = error.status in BUSY_STATUSES and time.monotonic() < deadline_s
                if not busy:
                    raise _python_error(error.status, error.body) from None
                await asyncio.sleep(_retry_after_s(error.headers.get("retry-after")))
            except (OSError, TimeoutError, BadAnswer) as error:
                raise _unreachable(self._server, error) from None

    def _body(self, job: Job) -> dict[str, Any]:
        params = job.params
        return {
            "model": self._model,
            "prompt": job.prompt_ids,
            **params.http_fields(),
            "seed": job.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "expertmesh_timings": True,
            **({} if params.logprobs is None else {"return_tokens_as_token_ids": True}),
            **({} if params.skip_special_tokens else {"skip_special_tokens": False}),
        }

    async def _answer(self, job: Job, body: bytes) -> AsyncGenerator[Delta, None]:
        """The deltas of the answers. Raises HttpError, ValueError, GenerationFailed."""
        last: Delta | None = None
        async with post_stream(
            self._server, "/v1/completions", body, api_key=self._api_key
        ) as stream:
            async for _, data in stream.events():
                event = orjson.loads(data)
                if event.get("error"):
                    raise _python_error(500, data.decode())
                for choice in event.get("choices") or ():
                    if last is not None:
                        yield last
                    last = await self._delta(job, choice)
                if last is not None and event.get("usage"):
                    details = event["usage"].get("prompt_tokens_details") or {}
                    last.num_cached_tokens = details.get("cached_tokens")
                    last.timings = event.get("expertmesh_timings") or {}
                elif last is not None and last.finish_reason is None:
                    yield last
                    last = None
        if last is not None:
            yield last

    async def _delta(self, job: Job, choice: dict[str, Any]) -> Delta:
        params = job.params
        delta = Delta(choice["index"], choice.get("text") or "" if params.detokenize else "")
        delta.token_ids = list(choice.get("token_ids") or ())
        delta.finish_reason = choice.get("finish_reason")
        delta.stop_reason = choice.get("stop_reason")
        if params.include_stop_str_in_output and isinstance(delta.stop_reason, str):
            delta.text += delta.stop_reason
        told = choice.get("logprobs")
        if params.logprobs is not None and told:
            columns = (told["tokens"], told["token_logprobs"], told["top_logprobs"])
            for token, logprob, top in zip(*columns, strict=True):
                delta.logprobs.append(await self._logprobs(token, logprob, top))
        return delta

    async def _logprobs(
        self, token: str, logprob: float, top: dict[str, float]
    ) -> dict[int, Logprob]:
        places = {name: place + 1 for place, name in enumerate(top)}
        entry = {}
        for name, value in ({token: logprob} | top).items():
            token_id = int(name.removeprefix("token_id:"))
            entry[token_id] = Logprob(value, places.get(name), await self._text_of(token_id))
        return entry

    async def _text_of(self, token_id: int) -> str:
        if token_id not in self._token_texts:
            self._token_texts[token_id] = await self.decode([token_id])
        return self._token_texts[token_id]

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # ASCII: messages may have lone surrogates, which can be escaped but not encoded in UTF-8.
        content = json.dumps({"model": self._model, **body}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await self._answered(self._client.post(path, content=content, headers=headers))
        result: dict[str, Any] = answer.json()
        return result

    async def _answered(self, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        try:
            answer = await request
        except httpx.HTTPError as error:
            raise _unreachable(self._server, error) from None
        if answer.status_code != 200:
            raise _python_error(answer.status_code, answer.text)
        return answer


async def open_over_http(base_url: str, *, api_key: str | None, model: str | None) -> HttpBackend:
    """Ask the server what it serves. Raises ValueError or GenerationFailed."""
    server = Server.parse(base_url)
    async with server.client(api_key, TIMEOUT_S) as client:
        try:
            answer = await client.get("/v1/models")
        except httpx.HTTPError as error:
            raise _unreachable(server, error) from None
    if answer.status_code != 200:
        raise _python_error(answer.status_code, answer.text)
    served = {entry["id"]: entry for entry in answer.json().get("data") or ()}
    if not served:
        raise GenerationFailed(f"{server.root} serves no model")
    if model is None:
        model = next(iter(served))
    if model not in served:
        raise ValueError(f"model: {server.root} serves {', '.join(served)}, not {model!r}")
    return HttpBackend(server, api_key, model, served[model])


def _unreachable(server: Server, error: Exception) -> GenerationFailed:
    reason = str(error) or type(error).__name__
    return GenerationFailed(f"{server.root}: {reason}; is the cluster up?")


def _python_error(status: int, body: str) -> Exception:
    """ValueError for the caller's mistakes, else GenerationFailed."""
    try:
        message = str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = body.strip()[:300] or "no message"
    if status in (400, 404, 413, 422):
        return ValueError(message)
    return GenerationFailed(f"the server answered {status}: {message}")


def _retry_after_s(header: str | None) -> float:
    try:
        return min(10.0, max(0.1, float(header or 1)))
    except ValueError:
        return 1.0
