"""Attention services and gateways are killed under a gateway's load."""

from collections.abc import Iterator

import pytest

from tests.chaos.gateway_rig import GatewayRig
from tests.chaos.history import History
from tests.chaos.http_streams import follow_http
from tests.chaos.streams import until
from tests.integration.test_pool_failure import status_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayRig]:
    with GatewayRig(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def test_streams_of_a_killed_attention_service_go_on_at_the_other(rig: GatewayRig):
    """J1: greedy ones equal the reference, sampled ones a quiet run with the same seed."""
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
    rig.start_gateway()
    history = History(rig.asks[0])
    follow_http(rig.url, history)
    verdict = rig.oracle.check([history])
    assert verdict.right, verdict.problems


def test_without_a_second_one_streams_end_with_an_error_and_new_requests_get_503(rig: GatewayRig):
    """J2. Last in this file: it takes both away."""
    with rig.load(3) as load:
        load.warm()
        rig.second.kill()
        rig.mesh.attention.kill()
        load.stop()
    verdict = rig.oracle.check(one for one in load.histories if one.finished)
    assert verdict.right, verdict.problems
    ended = [one.status for one in load.histories if not one.finished]
    assert ended
    assert all("in the stream" in one or one.startswith("503") for one in ended), ended
    refused = History(rig.asks[1])
    follow_http(rig.url, refused)
    assert refused.status.startswith("503")
