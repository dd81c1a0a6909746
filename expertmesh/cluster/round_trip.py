"""How long does one unary gRPC call take on this machine's loopback?"""

import asyncio
import time

from grpc_health.v1 import health_pb2, health_pb2_grpc

from rpc.channel import open_channel
from rpc.config import Address
from rpc.process.server import GrpcHost


def health_round_trips_us(count: int, timeout_s: float) -> list[float]:
    """Times in microseconds of `count` calls after a few to warm up. Raises on any failure."""
    return asyncio.run(asyncio.wait_for(_measure(count), timeout_s))


async def _measure(count: int) -> list[float]:
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=None, max_connections=8)
    await host.start([])
    channel = open_channel(str(host.address), tls=None, server_role="router")
    stub = health_pb2_grpc.HealthStub(channel)
    times_us = []
    try:
        for _ in range(20):
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
        for _ in range(count):
            started = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            times_us.append(1e6 * (time.perf_counter() - started))
    finally:
        await channel.close()
        await host.stop(0)
    return times_us
