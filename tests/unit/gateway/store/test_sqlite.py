"""The SQLite store is private, forgets, stays within its size, and outlives its process."""

import asyncio
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import checkpoints
from gateway.store.database import VERSION
from gateway.store.response_store import Kind, Status, StoreError, UnknownEntry, new_id
from tests.support.gateway.stores import (
    IN_MEMORY,
    MIB,
    TTL_S,
    Opened,
    conversation,
    open_sqlite,
    outcome,
    response,
)
from tests.support.places import ROOT

SECRET = b'{"text":"' + b"the secret of the user; " * 400 + b'"}'


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder) / "responses.sqlite"


@pytest.fixture
def opened(path: Path) -> Iterator[Opened]:
    found = open_sqlite(path)
    yield found
    found.close()


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_ids_cannot_be_guessed() -> None:
    ids = {new_id("resp_") for _ in range(100)}
    assert len(ids) == 100
    assert all(len(bytes.fromhex(id.removeprefix("resp_"))) >= 16 for id in ids)


def test_its_files_are_their_owners_whatever_they_were(path: Path) -> None:
    path.touch(0o666)
    path.chmod(0o666)
    opened = open_sqlite(path)
    opened(opened.store.put("t", response("r1")))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    opened.close()
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3  # with its log and that one's index


def test_a_key_is_not_in_the_file(opened: Opened, path: Path) -> None:
    opened(opened.store.put("key-0123456789abcdef:salt", response("r1")))
    assert b"key-0123456789abcdef" not in bytes_on_disk(path)


@pytest.mark.parametrize("how", ["another's", "deleted", "expired", "of another kind", "never"])
def test_anothers_answer_looks_like_one_that_never_was(opened: Opened, how: str) -> None:
    store = opened.store
    if how != "never":
        opened(store.put("other" if how == "another's" else "t", response("x")))
    if how == "deleted":
        opened(store.delete("t", Kind.RESPONSE, "x"))
    if how == "expired":
        opened.clock.now_s += TTL_S + 1
    kind = Kind.CONVERSATION if how == "of another kind" else Kind.RESPONSE
    unknown = (UnknownEntry, "x")
    assert outcome(lambda: opened(store.get("t", kind, "x"))) == unknown
    assert outcome(lambda: opened(store.delete("t", kind, "x"))) == unknown
    assert outcome(lambda: opened(store.items("t", "x"))) == unknown
    if kind is Kind.RESPONSE:
        assert outcome(lambda: opened(store.chain("t", "x"))) == unknown
        assert outcome(lambda: opened(store.put("t", response("y", parent_id="x")))) == unknown


@pytest.mark.parametrize("how", ["expired", "deleted", "deleted with its conversation"])
def test_what_is_gone_is_in_no_file_any_more(opened: Opened, path: Path, how: str) -> None:
    store = opened.store
    if how == "deleted with its conversation":
        opened(store.put("t", conversation("c1")))
        entry = response("r1", conversation_id="c1", output=SECRET)
    else:
        entry = response("r1", output=SECRET)
    opened(store.put("t", entry))
    assert b"the secret" in bytes_on_disk(path)
    if how == "expired":
        opened.clock.now_s += TTL_S + 1
        opened(store.sweep())
    else:
        opened(store.delete("t", Kind.RESPONSE, "r1"))
    assert b"the secret" not in bytes_on_disk(path)


def test_room_of_what_has_expired_is_given_back(opened: Opened, path: Path) -> None:
    for number in range(40):
        opened(opened.store.put("t", response(f"r{number}", output=SECRET * 10)))
    opened(opened.store.sweep())
    full_bytes = path.stat().st_size
    opened.clock.now_s += TTL_S + 1
    opened(opened.store.sweep())
    assert opened.noted.gone == {"expired": 40}
    assert path.stat().st_size < full_bytes / 10


def test_a_chain_lives_as_long_as_its_newest_answer(opened: Opened) -> None:
    store = opened.store
    opened(store.put("t", response("r1")))
    opened.clock.now_s += TTL_S - 1
    opened(store.put("t", response("r2", parent_id="r1")))
    opened.clock.now_s += TTL_S - 1
    assert [entry.id for entry in opened(store.chain("t", "r2"))] == ["r1", "r2"]
    opened.clock.now_s += 1
    assert outcome(lambda: opened(store.chain("t", "r2"))) == (UnknownEntry, "r2")


def test_the_oldest_make_room_and_the_file_never_exceeds_its_size(path: Path) -> None:
    opened = open_sqlite(path, max_bytes=2 * MIB)
    for number in range(300):
        opened.clock.now_s += 1
        opened(opened.store.put("t", response(f"r{number}", output=SECRET)))
        assert path.stat().st_size <= 2 * MIB
        if number % 5 == 0:
            opened(opened.store.sweep())
    kept = [
        outcome(lambda id=id: opened(opened.store.get("t", Kind.RESPONSE, id)).id) == id
        for id in (f"r{number}" for number in range(300))
    ]
    opened.close()
    assert kept == sorted(kept)  # none that is older than one that is gone
    assert 100 < kept.count(True) < 250
    assert opened.noted.failures == []


def test_room_is_made_at_once_when_answers_come_faster_than_it_is_swept(path: Path) -> None:
    opened = open_sqlite(path, max_bytes=2 * MIB)

    async def flood() -> None:
        await asyncio.gather(
            *(
                opened.store.put("t", response(f"r{number}", output=SECRET * 5))
                for number in range(100)
            )
        )

    opened(flood())
    assert opened(opened.store.get("t", Kind.RESPONSE, "r99")).output == SECRET * 5
    assert path.stat().st_size <= 2 * MIB
    opened.close()
    assert opened.noted.failures == []


def test_who_keeps_little_loses_nothing_to_who_keeps_much(path: Path) -> None:
    opened = open_sqlite(path, max_bytes=2 * MIB)
    opened(opened.store.put("modest", response("first")))
    for number in range(300):
        opened.clock.now_s += 1
        opened(opened.store.put("greedy", response(f"r{number}", output=SECRET)))
        if number % 5 == 0:
            opened(opened.store.sweep())
    assert opened.noted.gone["room"] > 50
    assert opened(opened.store.get("modest", Kind.RESPONSE, "first")).id == "first"
    opened.close()


def test_what_could_never_fit_is_refused_and_costs_no_other_its_place(path: Path) -> None:
    opened = open_sqlite(path, max_bytes=2 * MIB)
    opened(opened.store.put("t", response("r1")))
    with pytest.raises(StoreError) as refused:
        opened(opened.store.put("t", response("r2", output=b"x" * 2 * MIB)))
    assert refused.value.reason == "full"
    assert opened.noted.failures == ["full"]
    assert opened(opened.store.get("t", Kind.RESPONSE, "r1")).id == "r1"
    opened.close()


FILLING = """
import resource, signal, sys
from pathlib import Path
from gateway.store.response_store import Kind, StoreError
from tests.support.gateway.stores import open_sqlite, response
opened = open_sqlite(Path(sys.argv[1]))
opened(opened.store.put("t", response("r1")))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    opened(opened.store.put("t", response("r2", output=b"x" * 1_000_000)))
except StoreError as error:
    print("refused", error.reason)
print(opened(opened.store.get("t", Kind.RESPONSE, "r1")).id)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
opened(opened.store.put("t", response("r3", parent_id="r1", output=b"x" * 1_000_000)))
print([entry.id for entry in opened(opened.store.chain("t", "r3"))], opened.noted.failures)
opened.close()
"""


def run_python(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_full_disk_is_told_and_the_store_goes_on_when_there_is_room(path: Path) -> None:
    """A file that may not grow: what a disk without room looks like to one process."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = run_python(FILLING, str(path))
    told = done.stdout.splitlines()
    assert told[0].startswith("refused "), done.stderr
    assert told[1] == "r1"
    assert told[2].startswith("['r1', 'r3'] [")


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.store.response_store import Status
from tests.support.gateway.stores import open_sqlite, response
opened = open_sqlite(Path(sys.argv[1]))
opened(opened.store.put("t", response("running", status=Status.RUNNING)))
for number in range(100):
    opened(opened.store.put("t", response(f"r{number}", output=b"[%d]" % number)))
    print(number, flush=True)
    if number == 60:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_stored_outlives_kill_9_and_what_was_running_is_abandoned(path: Path) -> None:
    done = run_python(DYING, str(path))
    assert done.returncode == -signal.SIGKILL
    stored = done.stdout.split()
    assert stored[-1] == "60"
    opened = open_sqlite(path)
    for number in stored:
        entry = opened(opened.store.get("t", Kind.RESPONSE, f"r{number}"))
        assert entry.output == b"[%s]" % number.encode()
    assert opened(opened.store.get("t", Kind.RESPONSE, "running")).status is Status.RUNNING
    opened.clock.now_s += 31
    assert opened(opened.store.get("t", Kind.RESPONSE, "running")).status is Status.ABANDONED
    opened.close()


def test_an_answers_end_waits_for_no_sync_of_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PACE_S", 60.0)
    opened = open_sqlite(path)
    opened(opened.store.sweep())  # it has ended, and with it the one that the store began with
    for number in range(60):
        opened(opened.store.put("t", response(f"r{number}", output=SECRET * 10)))
    assert path.with_name(f"{path.name}-wal").stat().st_size > 5 * MIB
    assert b"the secret" not in path.read_bytes()
    opened.close()
    assert b"the secret" in path.read_bytes()


def test_what_was_stored_is_soon_in_the_file_though_nothing_follows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PACE_S", 0.05)
    opened = open_sqlite(path)
    opened(opened.store.put("t", response("r1", output=SECRET)))
    give_up_s = time.monotonic() + 20
    while b"the secret" not in path.read_bytes() and time.monotonic() < give_up_s:
        time.sleep(0.02)
    assert b"the secret" in path.read_bytes()
    opened.close()


def test_a_store_is_closed_at_any_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the time between two moves ends just then, on a busy machine."""
    monkeypatch.setattr(checkpoints, "PACE_S", 0.003)
    is_over = threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            sum(range(2000))

    def start_and_stop() -> None:
        for _ in range(25):
            moving = checkpoints.Checkpoints(path)
            moving.start()
            moving.note()
            time.sleep(checkpoints.PACE_S)
            moving.stop()

    threads = [threading.Thread(target=one, daemon=True) for one in (keep_busy, start_and_stop)]
    for one in threads:
        one.start()
    threads[1].join(60)
    is_over.set()
    assert not threads[1].is_alive()


def test_two_gateways_share_a_file(opened: Opened, path: Path) -> None:
    other = open_sqlite(path, opened.clock)
    opened(opened.store.put("t", response("r1", status=Status.RUNNING)))
    assert other(other.store.end("t", "r1", document=b"{}", output=b"[1]"))
    assert opened(opened.store.renew(["r1"])) == set()
    assert not opened(opened.store.end("t", "r1", document=b"{}", output=b"[2]"))
    assert opened(opened.store.get("t", Kind.RESPONSE, "r1")).output == b"[1]"
    other.close()


def test_a_store_of_the_first_version_gets_what_it_lacks(path: Path) -> None:
    opened = open_sqlite(path)
    opened(opened.store.put("t", response("r1")))
    opened.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE stored_answered")
        connection.execute("DROP INDEX stored_items_id")
        connection.execute("UPDATE stored_version SET version = 1")
    connection.close()
    opened = open_sqlite(path)
    entry = response("r2", parent_id="r1", output=b"[1]")
    opened(opened.store.put("t", entry, answered=["msg_1"]))
    assert opened(opened.store.lists_with("t", ["msg_1"])) == [b"[1]"]
    assert [one.id for one in opened(opened.store.chain("t", "r2"))] == ["r1", "r2"]
    opened.close()


def test_tables_of_a_newer_version_are_refused(path: Path) -> None:
    open_sqlite(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE stored_version SET version = ?", (VERSION + 1,))
    connection.close()
    with pytest.raises(ValueError, match=f"of version {VERSION + 1}, this gateway knows version"):
        open_sqlite(path)


def test_what_is_no_store_is_refused_and_left_as_it_was(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"a letter to a friend " * 100)
    with pytest.raises(ValueError, match=r"--response-store .*: file is not a database"):
        open_sqlite(path)
    assert path.read_bytes() == b"a letter to a friend " * 100
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ValueError, match=r"--response-store .*link: "):
        open_sqlite(link)
    with pytest.raises(ValueError, match=r"--response-store .*: No such file or directory"):
        open_sqlite(tmp_path / "missing" / "r.sqlite")


def test_anothers_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(ValueError, match=r"--response-store .*: the database of something else"):
        open_sqlite(path)


def test_a_slow_store_refuses_what_would_wait_too_long(opened: Opened) -> None:
    async def flood() -> list[object]:
        return await asyncio.gather(
            *(opened.store.put("t", response(f"r{number}")) for number in range(300)),
            return_exceptions=True,
        )

    refused = [one for one in opened(flood()) if one is not None]
    assert 300 - 256 <= len(refused) < 60  # what else it does has its place, too
    assert {one.reason for one in refused if isinstance(one, StoreError)} == {"busy"}
