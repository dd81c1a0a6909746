"""How does a client dial a service? Channels with the mesh's options and credentials."""

from types import ModuleType
from typing import Any

import grpc

from rpc.access.secret import MeshSecret, ProvingChannel
from rpc.access.tls import TlsFiles, channel_credentials, role_name
from rpc.config import CHANNEL_OPTIONS, PATIENCE_MS, POOL_PATIENCE_MS, patience_options

Access = TlsFiles | MeshSecret
"""How a process proves to services that it may call them: a certificate, or the mesh's secret."""


def check_files(access: Access | None) -> None:
    """Raises ValueError when certificate files cannot be used, instead of at the first call."""
    if isinstance(access, TlsFiles):
        access.pems.get()


def open_channel(target: str, *, tls: Access | None, server_role: str) -> grpc.aio.Channel:
    """An asyncio channel to a service of `server_role`; connects lazily, reconnects by itself."""
    return _open(grpc.aio, target, tls, server_role)


def open_sync_channel(target: str, *, tls: Access | None, server_role: str) -> grpc.Channel:
    """The same for threads: for leases and command lines."""
    return _open(grpc, target, tls, server_role)


def _open(kind: ModuleType, target: str, tls: Access | None, server_role: str) -> Any:
    limit_ms = POOL_PATIENCE_MS if server_role == "expert" else PATIENCE_MS
    options: tuple[tuple[str, int | str], ...] = (*CHANNEL_OPTIONS, *patience_options(limit_ms))
    if isinstance(tls, TlsFiles):
        options = (*options, ("grpc.ssl_target_name_override", role_name(server_role)))
        return kind.secure_channel(target, channel_credentials(tls), options=options)
    channel = kind.insecure_channel(target, options=options)
    return channel if tls is None else ProvingChannel(channel, tls)
