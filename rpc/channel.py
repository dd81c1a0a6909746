"""How does a client dial a service? Channels with the mesh's options and TLS."""

import grpc
import grpc.aio

from rpc.config import CHANNEL_OPTIONS, PATIENCE_MS, POOL_PATIENCE_MS, patience_options
from rpc.tls import TlsFiles, channel_credentials, role_name


def open_channel(target: str, *, tls: TlsFiles | None, server_role: str) -> grpc.aio.Channel:
    """An asyncio channel to a service of `server_role`; connects lazily, reconnects by itself."""
    options = _options(server_role)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    options = (*options, ("grpc.ssl_target_name_override", role_name(server_role)))
    return grpc.aio.secure_channel(target, channel_credentials(tls), options=options)


def open_sync_channel(target: str, *, tls: TlsFiles | None, server_role: str) -> grpc.Channel:
    """The same for threads: leases and command lines."""
    options = _options(server_role)
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    options = (*options, ("grpc.ssl_target_name_override", role_name(server_role)))
    return grpc.secure_channel(target, channel_credentials(tls), options=options)


def _options(server_role: str) -> tuple[tuple[str, int | str], ...]:
    limit_ms = POOL_PATIENCE_MS if server_role == "expert" else PATIENCE_MS
    return (*CHANNEL_OPTIONS, *patience_options(limit_ms))
