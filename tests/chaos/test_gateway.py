"""Attention services and gateways are killed and stopped under a gateway's load."""

import time
from collections.abc import Iterable, Iterator

import httpx
import pytest

from tests.support.attention_svc.long_requests import status_of
from tests.support.chaos.gateway_rig import GatewayRig
from tests.support.chaos.history import Ask, History, Verdict, check_prefix
from tests.support.chaos.http_streams import follow_http, http_sender
from tests.support.chaos.streams import Load, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayRig]:
    with GatewayRig(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def assert_right_as_far_as_they_came(rig: GatewayRig, histories: Iterable[History]) -> None:
    """Ended streams have all their tokens, the others a prefix of them and one end."""
    verdict = sum(
        (
            rig.oracle.check([one])
            if one.finished
            else check_prefix(one, rig.oracle.tokens(one.ask))
            for one in histories
        ),
        Verdict(),
    )
    assert verdict.right, verdict.problems[:5]


def test_streams_of_a_killed_attention_service_go_on_at_the_other(rig: GatewayRig):
    """J1: greedy streams equal the reference, sampled ones an undisturbed run of their seed."""
    with rig.load(8) as load:
        load.warm()
        rig.second.kill()
    verdict = rig.oracle.check(load.histories)
    assert verdict.right, verdict.problems[:5]
    assert rig.gateway_metric("expertmesh_gateway_migrations_total") >= 1
    rig.start_second()
    rig.gateway_sees(2)


def test_a_killed_gateway_leaves_no_sequence_behind(rig: GatewayRig):
    """K1."""
    addresses = [rig.mesh.attention.address, rig.second.address]
    with rig.load(4) as load:
        load.warm()
        rig.gateway.kill()
        until(lambda: sum(status_of(one).running_sequences for one in addresses) == 0)
        load.stop()
    assert all(status_of(one).ready for one in addresses)
    assert any(one.status for one in load.histories)
    assert_right_as_far_as_they_came(rig, load.histories)
    rig.start_gateway()
    history = History(rig.asks[0])
    follow_http(rig.url, history)
    verdict = rig.oracle.check([history])
    assert verdict.right, verdict.problems


def test_a_gateway_that_stops_lets_its_streams_finish(rig: GatewayRig):
    """K4, grace long enough: new requests are refused, so that clients ask another gateway."""
    asks = [Ask(prompt=(5 + number, 9), max_tokens=400) for number in range(4)]
    with Load(rig.url, asks, 4, send=http_sender(rig.url)) as load:
        load.warm()
        load.stop()
        rig.gateway.process.terminate()
        rig.gateway.wait_for("stopping")
        time.sleep(0.5)  # not only at first: until the last stream has ended
        refused = httpx.get(f"{rig.url}/readyz", timeout=10, trust_env=False)
        assert refused.status_code == 503
        assert rig.gateway.process.wait(30) == 0
    verdict = rig.oracle.check(load.histories)
    assert verdict.requests == 4
    assert verdict.right, verdict.problems[:5]
    rig.start_gateway()


def test_a_gateway_whose_grace_is_too_short_ends_its_streams_with_an_error(rig: GatewayRig):
    """K4."""
    assert rig.gateway.stop() == 0
    rig.start_gateway("--drain-s", "0.3")
    asks = [Ask(prompt=(5 + number, 9), max_tokens=800) for number in range(3)]
    with Load(rig.url, asks, 3, send=http_sender(rig.url)) as load:
        load.warm()
        load.stop()
        rig.gateway.process.terminate()
        assert rig.gateway.process.wait(30) == 0
    assert len(load.histories) == 3
    for one in load.histories:
        assert "in the stream" in one.status, one.status
        assert "not_ready" in one.status, one.status
    assert_right_as_far_as_they_came(rig, load.histories)
    rig.start_gateway()


def test_without_a_second_one_streams_end_with_an_error_and_new_requests_get_503(rig: GatewayRig):
    """J2. Last in this file: it takes both away."""
    with rig.load(3) as load:
        load.warm()
        rig.second.kill()
        rig.mesh.attention.kill()
        load.stop()
    assert_right_as_far_as_they_came(rig, load.histories)
    ended = [one for one in load.histories if not one.finished]
    assert any("in the stream" in one.status for one in ended)
    for one in ended:
        assert "not_ready" in one.status or one.status.startswith("503"), one.status
    refused = History(rig.asks[1])
    follow_http(rig.url, refused)
    assert refused.status.startswith("503")
    assert httpx.get(f"{rig.url}/readyz", timeout=10, trust_env=False).status_code == 503
    rig.start_second()
    rig.gateway_sees(1)
    back = History(rig.asks[1])
    follow_http(rig.url, back)
    verdict = rig.oracle.check([back])
    assert verdict.right, verdict.problems
