"""How does a client dial a service? Channels with the mesh's options, and what they show."""

from typing import cast

import grpc
import grpc.aio

from rpc.access.secret import MeshSecret, ProvingChannel
from rpc.access.tls import TlsFiles, channel_credentials, role_name
from rpc.config import CHANNEL_OPTIONS, PATIENCE_MS, POOL_PATIENCE_MS, patience_options

Access = TlsFiles | MeshSecret
"""What a process shows to those it calls: its certificate, or that it knows the secret."""


def check_files(access: Access | None) -> None:
    """Raises ValueError when certificate files cannot be used: now, and not at the first call."""
    if isinstance(access, TlsFiles):
        access.pems.get()


def open_channel(target: str, *, tls: Access | None, server_role: str) -> grpc.aio.Channel:
    """An asyncio channel to a service of `server_role`; connects lazily, reconnects by itself."""
    options = _options(server_role)
    if isinstance(tls, TlsFiles):
        options = (*options, ("grpc.ssl_target_name_override", role_name(server_role)))
        return grpc.aio.secure_channel(target, channel_credentials(tls), options=options)
    channel = grpc.aio.insecure_channel(target, options=options)
    return channel if tls is None else cast(grpc.aio.Channel, ProvingChannel(channel, tls))


def open_sync_channel(target: str, *, tls: Access | None, server_role: str) -> grpc.Channel:
    """The same for threads: leases and command lines."""
    options = _options(server_role)
    if isinstance(tls, TlsFiles):
        options = (*options, ("grpc.ssl_target_name_override", role_name(server_role)))
        return grpc.secure_channel(target, channel_credentials(tls), options=options)
    channel = grpc.insecure_channel(target, options=options)
    return channel if tls is None else cast(grpc.Channel, ProvingChannel(channel, tls))


def _options(server_role: str) -> tuple[tuple[str, int | str], ...]:
    limit_ms = POOL_PATIENCE_MS if server_role == "expert" else PATIENCE_MS
    return (*CHANNEL_OPTIONS, *patience_options(limit_ms))
