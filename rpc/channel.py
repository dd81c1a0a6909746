"""How does a client dial a service? Channels with the mesh's options and TLS."""

import grpc
import grpc.aio

from rpc.config import CHANNEL_OPTIONS
from rpc.tls import TlsFiles, channel_credentials, role_name


def open_channel(target: str, *, tls: TlsFiles | None, server_role: str) -> grpc.aio.Channel:
    """An asyncio channel to a service of `server_role`; connects lazily, reconnects by itself."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", role_name(server_role)))
    return grpc.aio.secure_channel(target, channel_credentials(tls), options=options)


def open_sync_channel(target: str, *, tls: TlsFiles | None, server_role: str) -> grpc.Channel:
    """The same for threads: leases and command lines."""
    if tls is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", role_name(server_role)))
    return grpc.secure_channel(target, channel_credentials(tls), options=options)
