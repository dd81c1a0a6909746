"""Which store do an operator's settings name?"""

import logging
from dataclasses import dataclass
from pathlib import Path

from gateway.store.database import Database
from gateway.store.database_thread import Counts
from gateway.store.sql_store import SqlStore, StoreLimits
from gateway.store.sqlite import SqliteDatabase

log = logging.getLogger(__name__)

NONE = "none"
POSTGRES = "postgres"


@dataclass(frozen=True, kw_only=True)
class StorePlace:
    """Where answers are kept."""

    name: str
    """`none`, `postgres`, or the path of a SQLite file."""
    url: str = ""
    """Of the PostgreSQL database."""


def build_store(place: StorePlace, limits: StoreLimits, counts: Counts) -> SqlStore | None:
    """The store, not yet opened; None for none. Raises ValueError for what it cannot be."""
    if place.name == NONE:
        log.info("response_store=none: no answer is kept")
        return None
    where = "PostgreSQL" if place.name == POSTGRES else place.name
    log.info(
        "response_store=%s: answers are kept for %g h after they were last continued, up to %g MiB",
        where,
        limits.ttl_s / 3600,
        limits.max_bytes / 2**20,
    )
    return SqlStore(
        _database(place, limits), limits, where=f"response store {where}", counts=counts
    )


def _database(place: StorePlace, limits: StoreLimits) -> Database:
    if place.name != POSTGRES:
        return SqliteDatabase(Path(place.name), max_bytes=limits.max_bytes)
    from gateway.store.postgres import PostgresDatabase

    return PostgresDatabase(place.url)
