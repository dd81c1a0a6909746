"""The cluster of deploy/compose.yaml on a real engine: it answers, grows, shrinks and survives.

Run by `make test-compose` only: it takes minutes and needs an engine, or root and Debian's
packages to start one. The tests build on each other, in this order.
"""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose.cluster import SOON_S, Cluster, eventually
from tests.support.compose.engine import docker, engine
from tests.support.compose.images import PROMETHEUS, ROOT, SERVICE, make_images

MONITORING = ROOT / "deploy" / "monitoring"
WORK = Path(os.environ.get("EXPERTMESH_COMPOSE_WORK", "/var/tmp/expertmesh-compose"))
TOKENS = 600
MOVED_BY_FAILURES = re.compile("failures|migrations|ejections|errors|losses|ALERTS|layer_total")
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("EXPERTMESH_TEST_COMPOSE"), reason="make test-compose"),
]


@pytest.fixture(scope="module")
def images() -> Iterator[None]:
    WORK.mkdir(parents=True, exist_ok=True)
    with engine(WORK):
        make_images(WORK)
        yield


@pytest.fixture(scope="module")
def cluster(images: None) -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture(scope="module")
def expected(cluster: Cluster) -> str:
    """The greedy answer of an undisturbed cluster."""
    return cluster.complete(TOKENS)


class Asking(threading.Thread):
    """A long answer, followed while something is done to the cluster."""

    def __init__(self, cluster: Cluster):
        super().__init__(daemon=True)
        self._cluster = cluster
        self._under_way = threading.Event()
        self.answer: str | None = None
        self.error: BaseException | None = None
        self.start()
        assert self._under_way.wait(SOON_S), "no answer began"
        assert self.is_alive(), self.error

    def run(self) -> None:
        try:
            self.answer = self._cluster.complete(TOKENS, self._count)
        except BaseException as error:
            self.error = error
        self._under_way.set()

    def _count(self, pieces: int) -> None:
        if pieces == 20:
            self._under_way.set()

    def end(self) -> str | None:
        self.join(SOON_S)
        assert not self.is_alive(), "the answer hangs"
        assert self.error is None, self.error
        return self.answer


def test_the_image_is_not_root_and_has_the_native_hop(images: None) -> None:
    script = "import os, rpc.hop._hop; print(os.getuid())"
    assert (
        docker("run", "--rm", "--network=none", "--entrypoint=python", SERVICE, "-c", script)
        == "10001"
    )
    for service in ("gateway", "router", "attention", "expert"):
        shown = docker("run", "--rm", "--network=none", SERVICE, "serve", service, "--help")
        assert f"expertmesh serve {service}" in shown
    size = int(docker("image", "inspect", "--format", "{{.Size}}", SERVICE))
    print(f"\nthe image has {size / 1e6:.0f} MB")


@pytest.mark.parametrize(
    "command",
    [
        "check config --syntax-only prometheus.yml",
        "check rules alerts.yml",
        "test rules alerts_test.yml",
    ],
)
def test_promtool_agrees(images: None, command: str) -> None:
    docker(
        *("run", "--rm", "--network=none", "--entrypoint=promtool", "--workdir=/monitoring"),
        *("--volume", f"{MONITORING}:/monitoring:ro", PROMETHEUS, *command.split()),
    )


def test_it_answers_and_prometheus_sees_all_of_it(cluster: Cluster) -> None:
    assert "6323" in cluster.chat("What is 4728 + 1595?")
    assert len(cluster.pools()) == 3
    eventually(lambda: cluster.sees_pools(cluster.pools()), "Prometheus scrapes the three pools")
    eventually(
        lambda: [*cluster.targets("attention").values()] == ["up", "up"],
        "Prometheus scrapes both attention services",
    )
    for job in ("router", "gateway"):
        eventually(lambda job=job: [*cluster.targets(job).values()] == ["up"], f"{job} is scraped")


def test_a_person_can_ask_who_holds_what(cluster: Cluster) -> None:
    """Two holders of each piece, spread over three pools."""
    shown = json.loads(cluster.compose("run", "--rm", "-T", "cli", "pool", "list", "--json"))
    pieces = sorted(pool["pieces_served"] for pool in shown["pools"])
    assert {pool["pool_id"] for pool in shown["pools"]} == cluster.pools()
    assert shown["uncovered_pieces"] == 0
    assert len(pieces) == 3
    assert pieces[0] > 0
    assert pieces[-1] < sum(pieces) / 2, "one pool holds everything"


def test_every_panel_of_the_dashboard_is_answered(cluster: Cluster, expected: str) -> None:
    """By this Prometheus, from this cluster; what only failures move may be empty."""
    dashboard = json.loads((MONITORING / "grafana/dashboards/expertmesh.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m")
            shown = f"{panel['title']}: {expression}"
            if MOVED_BY_FAILURES.search(expression):
                cluster.query(expression)
            else:
                eventually(lambda e=expression: cluster.query(e), shown)


def test_added_pools_join_and_take_over_with_no_further_command(
    cluster: Cluster, expected: str
) -> None:
    """The old ones are stopped one by one during an answer: the new ones take over all of it."""
    before = cluster.pools()
    asking = Asking(cluster)
    cluster.scale_pools(5)
    assert asking.end() == expected
    added = cluster.pools() - before
    assert len(added) == 2
    eventually(lambda: cluster.sees_pools(cluster.pools()), "Prometheus scrapes five pools")
    old = [one for one in cluster.containers("expert-svc") if f"expert-{one[:12]}" in before]
    asking = Asking(cluster)
    for container in old:
        docker("stop", "--time", "45", container)
    assert asking.end() == expected
    assert cluster.pools() == added
    assert cluster.complete(50)
    for pool in added:
        rows = f'sum(expertmesh_pool_rows_total{{instance="{pool}"}})'
        eventually(lambda q=rows: cluster.number(q), f"{pool} takes work")
    for container in old:
        docker("start", container)
    eventually(lambda: cluster.sees_pools(before | added), "the old ones are back")


def test_a_pool_killed_in_mid_answer_costs_no_token(cluster: Cluster, expected: str) -> None:
    losses = 'expertmesh_router_losses_total{role="pool"}'
    before, pools = cluster.number(losses), cluster.pools()
    asking = Asking(cluster)
    rows = cluster.query("topk(1, sum by (instance) (expertmesh_pool_rows_total))")
    crash(cluster, "expert-svc", rows[0]["metric"]["instance"].removeprefix("expert-"))
    assert asking.is_alive(), "the answer ended too early to be hurt"
    assert asking.end() == expected
    eventually(lambda: cluster.number(losses) == before + 1, "Prometheus sees one lost pool")
    eventually(
        lambda: cluster.query('ALERTS{alertname="PoolLost",alertstate="firing"}'), "an alert"
    )
    eventually(lambda: cluster.sees_pools(pools), "the engine's restart of it is scraped again")


def test_an_attention_service_killed_in_mid_answer_costs_no_token(
    cluster: Cluster, expected: str
) -> None:
    asking = Asking(cluster)
    crash(cluster, "attention", next(filter(computes, cluster.containers("attention"))))
    assert asking.is_alive(), "the answer ended too early to be moved"
    assert asking.end() == expected
    eventually(
        lambda: cluster.number("sum(expertmesh_gateway_migrations_total)") >= 1,
        "Prometheus sees that the stream went on elsewhere",
    )


def test_removed_pools_leave_without_a_lost_token(cluster: Cluster, expected: str) -> None:
    asking = Asking(cluster)
    cluster.scale_pools(2)
    assert asking.end() == expected
    assert len(cluster.pools()) == 2
    eventually(lambda: cluster.sees_pools(cluster.pools()), "Prometheus scrapes the two that stay")
    assert cluster.complete(TOKENS) == expected
    assert cluster.number('sum(expertmesh_requests_total{outcome=~"error|unavailable"})') == 0


def computes(attention: str) -> bool:
    """Whether this attention service has a running sequence."""
    script = (
        "import urllib.request; "
        "print(urllib.request.urlopen('http://127.0.0.1:50061/metrics').read().decode())"
    )
    metrics = docker("exec", attention, "python", "-c", script)
    return "\nexpertmesh_sequences_running 0.0" not in metrics


def crash(cluster: Cluster, service: str, container: str) -> None:
    """Kill the service's process: after the engine's own kill there would be no restart."""
    victim = next(one for one in cluster.containers(service) if one.startswith(container))
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", victim)), signal.SIGKILL)
