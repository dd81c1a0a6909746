"""What do probes, metrics and version say?"""

from importlib.metadata import version as version_of
from typing import Literal

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.requests import gateway_of, json_response
from rpc.config import PROTOCOL_MAJOR, PROTOCOL_MINOR

VERSION = version_of("expertmesh")


class Health(BaseModel):
    """What GET /health answers."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ready", "not ready"]
    reason: str | None


class AttentionVersion(BaseModel):
    """One attention service."""

    model_config = ConfigDict(extra="forbid")

    attention_id: str
    version: str
    checkpoint_id: str
    dtype: str
    transport: str
    batch_invariant: bool


class Versions(BaseModel):
    """What GET /version answers."""

    model_config = ConfigDict(extra="forbid")

    version: str
    protocol: str
    batch_invariant: bool
    attention: list[AttentionVersion]


async def livez(request: Request) -> Response:
    """The process answers."""
    return Response("ok\n", media_type="text/plain")


async def readyz(request: Request) -> Response:
    """Whether a request would be taken, with the reason when not."""
    ready, reason = gateway_of(request).readiness()
    if ready:
        return Response("ready\n", media_type="text/plain")
    return Response(f"{reason}\n", status_code=503, media_type="text/plain")


async def health(request: Request) -> Response:
    """The same as JSON."""
    ready, reason = gateway_of(request).readiness()
    told = {"status": "ready" if ready else "not ready", "reason": reason or None}
    return json_response(told, 200 if ready else 503)


async def metrics(request: Request) -> Response:
    """Prometheus text."""
    gateway = gateway_of(request)
    gateway.metrics.replicas_ready.set(sum(r.ready for r in gateway.pool.replicas))
    return Response(
        generate_latest(gateway.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


async def version(request: Request) -> Response:
    """Versions of the gateway and of each attention service, and whether batches are invariant."""
    gateway = gateway_of(request)
    statuses = [replica.status for replica in gateway.pool.replicas if replica.status]
    return json_response(
        {
            "version": VERSION,
            "protocol": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
            "batch_invariant": bool(statuses) and all(s.batch_invariant for s in statuses),
            "attention": [
                {
                    "attention_id": status.attention_id,
                    "version": status.version,
                    "checkpoint_id": status.checkpoint_id,
                    "dtype": status.dtype,
                    "transport": status.transport,
                    "batch_invariant": status.batch_invariant,
                }
                for status in statuses
            ],
        }
    )
