"""Which attention service can reach which pool, as each of them says?"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from rich.table import Table

from expertmesh.clients.unanswered import why_unanswered
from protos import attention_pb2, attention_pb2_grpc
from rpc.access.tls import TlsFiles
from rpc.channel import Access, open_sync_channel

TIMEOUT_S = 3.0


def reach_report(addresses: Iterable[str], access: Access | None = None) -> list[dict[str, Any]]:
    """A row for each attention service, in the given order: its state, and the pools it knows."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(lambda address: _ask(address, access), addresses))


def reach_table(rows: list[dict[str, Any]]) -> Table | None:
    """Attention services as rows, pools as columns; None if no pool is known."""
    pool_ids = sorted({pool["pool_id"] for row in rows for pool in row["pools"]})
    if not pool_ids:
        return None
    table = Table("attention \\ pool", *pool_ids, box=None)
    for row in rows:
        cells = {pool["pool_id"]: _cell(pool) for pool in row["pools"]}
        absent = "not in its topology" if row["answers"] else "?"
        table.add_row(row["attention_id"], *(cells.get(pool_id, absent) for pool_id in pool_ids))
    return table


def problems(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each service that does not answer and each pool that is not reachable."""
    silent = [f"{row['attention_id']}: {row['error']}" for row in rows if not row["answers"]]
    return silent + [
        f"{row['attention_id']} cannot reach {pool['pool_id']} at {pool['address']}: "
        f"{pool['error']}"
        for row in rows
        for pool in row["pools"]
        if not pool["reachable"]
    ]


def _cell(pool: dict[str, Any]) -> str:
    if not pool["reachable"]:
        return "no"
    text = f"{pool['network_ms']:.1f} ms" if pool["network_ms"] else "yes"
    return f"{text}, ejected" if pool["ejected"] else text


def _ask(address: str, access: Access | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "attention_id": address,
        "address": address,
        "answers": False,
        "pools": [],
    }
    with open_sync_channel(address, tls=access, server_role="attention") as channel:
        stub = attention_pb2_grpc.AttentionStub(channel)
        try:
            status = stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            why = f"{error.code().name.lower()}: {error.details()}"
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                with_tls = isinstance(access, TlsFiles)
                why = "unavailable: " + why_unanswered(
                    address, "attention service", with_tls=with_tls
                )
            return {**row, "error": why}
    return {
        **row,
        "attention_id": status.attention_id or address,
        "answers": True,
        "error": "",
        "ready": status.ready,
        "draining": status.draining,
        "pools": [
            {
                "pool_id": pool.pool_id,
                "address": pool.address,
                "reachable": pool.reachable,
                "error": pool.error,
                "numerics_id": pool.numerics_id,
                "ejected": pool.ejected,
                "network_ms": round(pool.network_ms, 3),
            }
            for pool in status.pools
        ],
    }
