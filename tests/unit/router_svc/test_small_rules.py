"""Addresses, epochs, flags, boxes and load counts."""

import asyncio
from pathlib import Path

import pytest

from protos import router_pb2
from router_svc.config import RouterConfig
from router_svc.members.addresses import AddressRules, advertised, seen_host
from router_svc.members.dialback import dial
from router_svc.members.epoch import next_epoch
from router_svc.members.member import Model
from router_svc.placement.activations import MAX_PER_REPORT, Activations
from router_svc.streams import Newest, StreamEnd, until_first
from rpc.config import Address


@pytest.mark.parametrize(
    "peer, host",
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5Bfd00::7%5D:4711", "fd00::7"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:/tmp/socket", ""),
        ("", ""),
    ],
)
def test_the_host_is_read_from_grpcs_peer(peer, host):
    assert seen_host(peer) == host


@pytest.mark.parametrize(
    "text, caller, address",
    [
        ("node-3:50052", "10.0.0.7", "node-3:50052"),
        (":50052", "10.0.0.7", "10.0.0.7:50052"),
        ("0.0.0.0:50052", "10.0.0.7", "10.0.0.7:50052"),
        ("[::]:50052", "fd00::7", "[fd00::7]:50052"),
        ("[fd00::9]:50052", "10.0.0.7", "[fd00::9]:50052"),
    ],
)
def test_a_host_that_means_any_becomes_the_callers(text, caller, address):
    assert str(advertised(text, caller, "address")) == address


@pytest.mark.parametrize(
    "text, caller",
    [
        (":50052", ""),
        ("0.0.0.0:50052", ""),
        ("", "10.0.0.7"),
        ("50052", "10.0.0.7"),
        ("a:0", "10.0.0.7"),
        (":0", "10.0.0.7"),
        (":x", "10.0.0.7"),
        ("a:70000", "10.0.0.7"),
    ],
)
def test_an_address_that_cannot_be_dialled_is_refused_by_name(text, caller):
    with pytest.raises(ValueError, match=r"register\.address: "):
        advertised(text, caller, "register.address")


async def test_a_dial_names_what_went_wrong():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with server:
        assert await dial(address) == ""
    assert await dial(address) == f"cannot reach {address}: Connection refused"
    nowhere = Address(host="no-such-host.invalid", port=1)
    assert (await dial(nowhere, timeout_s=10)).startswith(f"cannot reach {nowhere}: ")


async def test_a_dial_that_nobody_answers_times_out(monkeypatch):
    async def hangs(host, port):
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio, "open_connection", hangs)
    address = Address(host="10.255.255.1", port=1)
    assert await dial(address, timeout_s=0.05) == f"cannot reach {address}: no answer within 0.05 s"


def rules(*networks: str) -> AddressRules:
    """Of a router whose machine has loopback, 10.77.0.1 and fd00::1."""
    ours = ("127.0.0.1", "::1", "10.77.0.1", "fd00::1")
    return AddressRules(networks, is_ours=lambda ip: str(ip) in ours)


@pytest.mark.parametrize(
    "ips, caller",
    [
        (["10.77.0.3"], "10.77.0.3"),
        (["fd00::3"], "fd00::3"),
        (["10.77.0.3"], "::ffff:10.77.0.3"),
        (["10.77.0.3", "fd00::3"], "10.77.0.3"),  # a name with both kinds
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "127.0.0.1"),
        (["10.77.0.1"], "127.0.0.1"),  # beside the router
        (["127.0.0.1"], "10.77.0.1"),
        (["10.9.0.1"], ""),  # not over a network
    ],
)
def test_a_member_may_give_the_address_it_calls_from(ips, caller):
    assert rules().problem(ips, caller) == ""


@pytest.mark.parametrize(
    "ips, caller",
    [
        (["169.254.169.254"], "10.77.0.3"),
        (["169.254.169.254"], "127.0.0.1"),
        (["169.254.1.1"], "169.254.1.1"),
        (["::ffff:169.254.169.254"], "127.0.0.1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["10.77.0.4"], "10.77.0.3"),
        (["8.8.8.8"], "127.0.0.1"),
        (["127.0.0.1"], "10.77.0.3"),
        (["::1"], "10.77.0.3"),
        (["::ffff:127.0.0.1"], "10.77.0.3"),
        (["10.77.0.1"], "10.77.0.3"),  # the router's own
        (["224.0.0.1"], "10.77.0.3"),
        (["0.0.0.0"], "127.0.0.1"),
        (["10.77.0.3", "169.254.169.254"], "10.77.0.3"),
        (["10.77.0.3", "127.0.0.1"], "10.77.0.3"),
        (["10.77.0.4", "10.77.0.5"], "10.77.0.3"),
    ],
)
def test_a_member_may_give_no_other_unless_the_network_is_allowed(ips, caller):
    assert "--member-network" in rules().problem(ips, caller)
    assert "--member-network" in rules("192.168.0.0/16").problem(ips, caller)
    assert rules("0.0.0.0/0", "::/0").problem(ips, caller) == ""


def test_a_network_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match="--member-network: expected a network"):
        RouterConfig(member_network=("10.0.0.0/40",))


async def test_a_dial_is_checked_again_by_what_the_name_stands_for_now():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = Address(host="localhost", port=server.sockets[0].getsockname()[1])
    async with server:
        assert await dial(address, caller_host="127.0.0.1", rules=rules()) == ""
        told = await dial(address, caller_host="10.77.0.3", rules=rules())
        assert told.startswith(f"will not dial {address}: ")


def test_epochs_rise_by_one_and_survive_in_the_file(tmp_path):
    state = tmp_path / "epoch"
    assert next_epoch(state, lambda: 500) == (500, False)
    assert next_epoch(state, lambda: 1) == (501, True)  # the clock may jump back
    assert state.read_text() == "501\n"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch"]


def test_without_a_file_the_clock_gives_the_epoch():
    assert next_epoch(None, lambda: 77) == (77, False)


def test_a_state_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match="--state: cannot write"):
        next_epoch(tmp_path / "missing" / "epoch", lambda: 1)
    with pytest.raises(ValueError, match="--state: cannot read"):
        next_epoch(tmp_path, lambda: 1)


@pytest.mark.parametrize(
    "flags, named",
    [
        ({"listen": "nowhere"}, "--listen"),
        ({"ops_listen": "nowhere"}, "--ops-listen"),
        ({"listen": "0.0.0.0:1"}, "--insecure"),
        ({"lease_ms": 199}, "--lease-ms"),
        ({"adopt_ms": -1}, "--adopt-ms"),
        ({"max_members": 1001}, "--max-members"),
        ({"tls_cert": Path("x")}, "--tls-ca"),
        ({"log_level": "loud"}, "--log-level"),
    ],
)
def test_bad_flags_are_named(flags, named):
    with pytest.raises(ValueError, match=named):
        RouterConfig(**flags)


def test_plaintext_beyond_loopback_needs_a_word():
    assert RouterConfig(listen="0.0.0.0:1", insecure=True).listen_address.port == 1


async def test_a_box_gives_only_the_newest_item():
    box: Newest[int] = Newest()
    box.put(1)
    box.put(2)
    assert await box.take() == 2
    waiting = asyncio.ensure_future(box.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put(3)
    assert await waiting == 3


async def test_the_first_reason_ends_a_stream():
    ending = StreamEnd()
    ending.end(ValueError("first"))
    ending.end(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await ending.wait()
    ending.close()


async def test_the_first_part_to_end_cancels_the_others_and_its_error_counts():
    cancelled = []

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def failing() -> None:
        raise ValueError("part")

    with pytest.raises(ValueError, match="part"):
        await until_first(lasting(), failing())
    await until_first(lasting(), asyncio.sleep(0))
    assert cancelled == [True, True]


def test_a_mesh_of_another_model_starts_its_load_counts_anew():
    counts = Activations()
    report = router_pb2.MemberStatus(
        activations=[router_pb2.LayerActivations(layer_idx=0, expert_ids=[1], token_counts=[3])]
    )
    assert counts.page()["tokens"] == []
    assert counts.add(Model("one", 1, 2), report, 0.0) == {0: 3}
    assert counts.page()["tokens"] == [[0, 3]]
    counts.add(Model("two", 2, 2), report, 1.0)
    assert counts.page()["tokens"] == [[0, 3], [0, 0]]
    assert counts.page()["checkpoint_id"] == "two"


def test_recent_work_is_steps_and_an_eighth_of_the_rows_and_halves():
    counts = Activations(half_life_s=10.0)
    model = Model("one", 1, 2)

    def report(at_s, **fields):
        entry = router_pb2.LayerActivations(layer_idx=0, expert_ids=[1], **fields)
        counts.add(model, router_pb2.MemberStatus(activations=[entry]), at_s)

    report(100.0, token_counts=[80], step_counts=[10])
    assert counts.recent_work(100.0) == [[0.0, 20.0]]
    assert counts.recent_work(110.0) == [[0.0, pytest.approx(10.0)]]
    report(120.0, token_counts=[8])  # of a service that counts no steps
    assert counts.recent_work(120.0) == [[0.0, pytest.approx(5.0 + 9.0)]]
    report(1000.0, token_counts=[8], step_counts=[1])  # longer than numbers are scaled up
    assert counts.recent_work(1000.0) == [[0.0, pytest.approx(2.0)]]
    assert counts.recent_work(1e9) == [[0.0, pytest.approx(0.0)]]
    with pytest.raises(ValueError, match="step_counts"):
        report(1001.0, token_counts=[8], step_counts=[1, 2])


def test_an_absurd_token_count_is_refused():
    entry = router_pb2.LayerActivations(
        layer_idx=0, expert_ids=[1], token_counts=[MAX_PER_REPORT + 1]
    )
    with pytest.raises(ValueError, match="in one report"):
        Activations().add(Model("one", 1, 2), router_pb2.MemberStatus(activations=[entry]), 0.0)
