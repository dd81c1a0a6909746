"""What does one expert round trip cost beyond its computation?

One layer (D = 3072, F = 128, 8 experts, top-8). In one server process: a real ExpertPool, a bare
aio bidi echo with the same server, options and sizes, and a plain TCP echo. In this process: the
real client (attention_svc's transport), a bare aio stream, a socket. Real calls and references
alternate, so that noise hits both. The last line is JSON.

ratio = (execute - compute) / echo, medians of paired rounds.

A computation of milliseconds leaves the caller's core with cold caches (docs/cold-caches.md); a
bare echo that answers at once does not. So a second echo does the same computation before it
answers: `ratio_working` = (execute - compute) / (working echo - its computation) is what our code
adds.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rpc  # noqa: F401  sets grpc's environment before grpc is imported

import grpc  # isort: skip
import grpc.aio  # isort: skip
import torch

from attention_svc.experts.over_grpc import GrpcTransport
from attention_svc.experts.transport import HopTerms
from attention_svc.metrics import AttentionMetrics
from moe_model.backends.choice import choose_backend
from moe_model.config import ModelConfig
from moe_model.numerics import DTYPES
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import ensure_manifest
from protos import expert_pb2, router_pb2
from rpc.access.guard import callable_by
from rpc.access.tls import TlsFiles
from rpc.channel import open_channel
from rpc.hop.codec import HopCodec
from rpc.hop.tensor_codec import encode
from rpc.mesh.pieces import Pieces

if TYPE_CHECKING:
    from expert_svc.weight_store import WeightStore

ECHO_METHOD = "/expertmesh.bench.Echo/Stream"
WORKING_ECHO_METHOD = "/expertmesh.bench.Echo/WorkingStream"
SHAPE = {
    "hidden_size": 3072, "intermediate_size": 128, "num_hidden_layers": 1, "num_local_experts": 8,
    "num_experts_per_tok": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64,
}  # fmt: skip


class EchoHandler(grpc.GenericRpcHandler):
    """Bytes in, bytes of a fixed size out; the working echo computes first, and says how long."""

    def __init__(self, work: Callable[[], object]):
        self._work = work

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == ECHO_METHOD:
            return grpc.stream_stream_rpc_method_handler(self._echo)
        if details.method == WORKING_ECHO_METHOD:
            return grpc.stream_stream_rpc_method_handler(self._working_echo)
        return None

    @callable_by("attention")
    async def _echo(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        answer = bytes(int(await context.read()))
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer)

    @callable_by("attention")
    async def _working_echo(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        padding = bytes(int(await context.read()) - 8)
        while await context.read() is not grpc.aio.EOF:
            start = time.monotonic()
            self._work()
            elapsed_ns = int((time.monotonic() - start) * 1e9)
            await context.write(elapsed_ns.to_bytes(8, "little") + padding)


async def serve(model: Path, dtype: torch.dtype, threads: int, tls: TlsFiles | None) -> None:
    """The server process: prints its ports, then serves until its stdin closes."""
    from expert_svc.canary import Canary
    from expert_svc.compute import run_call
    from expert_svc.executor import Executor
    from expert_svc.metrics import ExpertMetrics
    from expert_svc.servicer import ExpertServicer, PoolIdentity
    from expert_svc.weight_store import WeightStore
    from rpc.config import Address, max_rows_per_message
    from rpc.process.server import GrpcHost

    backend, checkpoint = choose_backend(dtype), Checkpoint.open(model)
    backend.set_threads(threads)
    manifest = ensure_manifest(checkpoint)
    store = WeightStore(checkpoint, manifest, backend)
    store.load(store.available())
    executor = Executor(lambda call: run_call(call, store), inline_rows=16)
    metrics = ExpertMetrics()
    servicer = ExpertServicer(
        PoolIdentity(
            pool_id="bench", incarnation=1, checkpoint_id=manifest.checkpoint_id, numerics_id=""
        ),
        store, executor, metrics, HopCodec.best(),
        max_rows=max_rows_per_message(SHAPE["hidden_size"], 8),
        try_experts=Canary(store, executor, metrics, period_s=0).try_now,
    )  # fmt: skip
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=tls)
    host.bind()
    host.server.add_generic_rpc_handlers((EchoHandler(decode_work(store)),))
    servicer.add_to(host.server)
    await host.start(["expertmesh.expert.v1.ExpertPool"])
    running = asyncio.create_task(executor.run())
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_tcp_server, args=(listener,), daemon=True).start()
    print(host.port, listener.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    running.cancel()
    listener.close()
    await host.stop(0)


def decode_work(store: "WeightStore") -> Callable[[], object]:
    """The computation of a one-row call, without a call."""
    from expert_svc.calls import Call
    from expert_svc.compute import run_call
    from moe_model.maths.expert_calls import CallRows

    rows = CallRows(
        hidden_ND=torch.randn(1, SHAPE["hidden_size"]).to(store.dtype),
        row_of_pair_M=torch.zeros(8, dtype=torch.int64),
        expert_ids_M=torch.arange(8),
        weights_M=torch.full((8,), 1 / 8),
    )
    call = Call(
        call_id=1, layer_idx=0, is_decode=True, deadline_s=0.0, per_pair=False,
        num_rows=1, unpack=lambda _room: rows, received_s=0.0,
    )  # fmt: skip
    return lambda: run_call(call, store)


def _tcp_server(listener: socket.socket) -> None:
    """Serve one connection after another from a thread, until the listener closes."""
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_tcp_serve, args=(sock,), daemon=True).start()


def _tcp_serve(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    header = _receive(sock, 16)
    request, response = int(header[:8]), int(header[8:])
    answer = bytes(response)
    while _receive(sock, request):
        sock.sendall(answer)
    sock.close()


def _receive(sock: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes, or none at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            return b""
        data += part
    return bytes(data)


class TcpEcho:
    """A plain blocking socket with TCP_NODELAY: the floor of a round trip of these sizes."""

    def __init__(self, port: int, request: int, response: int):
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(b"%08d%08d" % (request, response))
        self._payload, self._response = bytes(request), response

    def round_trip(self) -> None:
        self._sock.sendall(self._payload)
        _receive(self._sock, self._response)

    def close(self) -> None:
        self._sock.close()


async def connect(
    port: int, config: ModelConfig, checkpoint_id: str, tls: TlsFiles | None
) -> GrpcTransport:
    """The real client, connected to the pool."""
    transport = GrpcTransport.of_model(
        config, AttentionMetrics(), checkpoint_id=checkpoint_id, caller_id="bench", access=tls
    )
    entry = router_pb2.PoolEntry(
        pool_id="bench", incarnation=1, address=f"127.0.0.1:{port}",
        pieces=Pieces.all_of(config.num_layers, config.num_experts).to_message(),
    )  # fmt: skip
    transport.pools.apply(router_pb2.Topology(pools=[entry]))
    async with asyncio.timeout(20):
        while not transport.ready()[0]:
            await asyncio.sleep(0.05)
    return transport


async def measure(
    ports: tuple[int, int], model: Path, dtype: torch.dtype, rows: int, rounds: int,
    tls: TlsFiles | None,
) -> dict[str, float]:  # fmt: skip
    """Alternate real calls and echoes of the same sizes; medians in microseconds."""
    checkpoint = Checkpoint.open(model)
    config = checkpoint.config
    checkpoint_id = ensure_manifest(checkpoint).checkpoint_id
    port, tcp_port = ports
    transport = await connect(port, config, checkpoint_id, tls)
    hidden = torch.randn(rows, config.hidden_size).to(dtype)
    ids = torch.arange(8, dtype=torch.int32).expand(rows, 8).contiguous()
    weights = torch.full((rows, 8), 1 / 8)
    out = torch.empty(rows, config.hidden_size)
    request_bytes, response_bytes = message_sizes(hidden, ids)
    channel = open_channel(f"127.0.0.1:{port}", tls=tls, server_role="expert")
    echo = channel.stream_stream(ECHO_METHOD)()
    working_echo = channel.stream_stream(WORKING_ECHO_METHOD)()
    for stream in (echo, working_echo):
        await stream.write(b"%d" % response_bytes)
    payload = bytes(request_bytes)
    terms = HopTerms(timeout_s=10.0)
    tcp_echo = TcpEcho(tcp_port, request_bytes, response_bytes)
    overhead, execute, compute, echoes, working, tcp = [], [], [], [], [], []

    async def real_call() -> None:
        start = time.perf_counter()
        ticket = transport.submit(0, hidden, ids, weights, terms, is_decode=rows == 1)
        hop = await ticket.wait_into(out)
        execute.append(time.perf_counter() - start)
        compute.append(hop.compute_s)
        overhead.append(execute[-1] - hop.compute_s)

    async def bare_echo() -> None:
        start = time.perf_counter()
        await echo.write(payload)
        await echo.read()
        echoes.append(time.perf_counter() - start)

    async def computing_echo() -> None:
        start = time.perf_counter()
        await working_echo.write(payload)
        work_ns = int.from_bytes((await working_echo.read())[:8], "little")
        working.append(time.perf_counter() - start - work_ns / 1e9)

    async def socket_echo() -> None:
        start = time.perf_counter()
        tcp_echo.round_trip()
        tcp.append(time.perf_counter() - start)

    for index in range(rounds + rounds // 10):
        if index == rounds // 10:  # the first tenth warms up
            for values in (overhead, execute, compute, echoes, working, tcp):
                values.clear()
        # Each follows a real call: what ran before decides how warm caches and cores are.
        for reference in (bare_echo, computing_echo, socket_echo):
            await real_call()
            await reference()
    for stream in (echo, working_echo):
        await stream.done_writing()
    await channel.close()
    await transport.pools.stop()
    tcp_echo.close()
    return {
        "rows": rows,
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
        "echo_p50_us": us(echoes),
        "echo_p99_us": us(echoes, 0.99),
        "tcp_p50_us": us(tcp),
        "execute_p50_us": us(execute),
        "execute_p99_us": us(execute, 0.99),
        "compute_p50_us": us(compute),
        "overhead_p50_us": us(overhead),
        "ratio": round(statistics.median(overhead) / statistics.median(echoes), 3),
        "working_echo_p50_us": us(working),
        "ratio_working": round(statistics.median(overhead) / statistics.median(working), 3),
        "ratio_tcp": round(statistics.median(overhead) / statistics.median(tcp), 3),
    }


def message_sizes(hidden: torch.Tensor, ids: torch.Tensor) -> tuple[int, int]:
    """Bytes of the Execute and of the Result for these rows."""
    frame = expert_pb2.Execute(
        call_id=1000, timeout_ms=10_000, phase=1, combine=1, hidden=encode(hidden),
        row_splits=bytes(4 * (len(ids) + 1)), expert_ids=bytes(4 * ids.numel()),
        weights=bytes(4 * ids.numel()),
    )  # fmt: skip
    result = expert_pb2.Result(
        call_id=1000, rows=encode(hidden.float()), queue_us=10, compute_us=1000
    )
    return (
        expert_pb2.ExecuteRequest(execute=frame).ByteSize(),
        expert_pb2.ExecuteResponse(result=result).ByteSize(),
    )


def us(values: list[float], quantile: float = 0.5) -> float:
    """A quantile in microseconds."""
    ordered = sorted(values)
    return round(1e6 * ordered[min(len(ordered) - 1, int(quantile * len(ordered)))], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1, help="compute threads of the pool")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="bf16", help="of rows, answers and weights"
    )
    parser.add_argument("--tls", action="store_true", help="mTLS on every gRPC connection")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--certs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tls, dtype = None, DTYPES[arguments.dtype]
    if arguments.serve:
        certs = arguments.certs and tls_of(arguments.certs, "expert")
        asyncio.run(serve(arguments.serve, dtype, arguments.threads, certs))
        return
    choose_backend(dtype).set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_tiny(model, **SHAPE)
        ensure_manifest(Checkpoint.open(model))
        command = [
            sys.executable, __file__, "--serve", str(model), "--dtype", arguments.dtype,
            "--threads", str(arguments.threads),
        ]  # fmt: skip
        if arguments.tls:
            certs = Path(folder) / "certs"
            subprocess.run(
                [sys.executable, "-m", "expertmesh", "certs", "--out", str(certs)],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            command += ["--certs", str(certs)]
            tls = tls_of(certs, "attention")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert server.stdout is not None
        port, tcp_port = (int(part) for part in server.stdout.readline().split())
        try:
            results = {}
            for rows, rounds in ((1, arguments.rounds), (256, max(50, arguments.rounds // 20))):
                print(f"measuring {rows} row(s), {rounds} rounds ...", file=sys.stderr, flush=True)
                measured = measure((port, tcp_port), model, dtype, rows, rounds, tls)
                results[rows] = asyncio.run(measured)
                print(json.dumps(results[rows], indent=1), file=sys.stderr)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(10)
    print(
        json.dumps(
            {**results[1], "rows_256": results[256], "dtype": arguments.dtype,
             "tls": arguments.tls, "grpc": grpc.__version__,
             "experiments": os.environ.get("GRPC_EXPERIMENTS", "")}
        )
    )  # fmt: skip


def tls_of(folder: Path, role: str) -> TlsFiles:
    """The role's certificate made by `expertmesh certs`."""
    cert, key = (folder / f"{role}{part}.pem" for part in ("", "-key"))
    return TlsFiles(ca=folder / "ca.pem", cert=cert, key=key)


if __name__ == "__main__":
    main()
