"""The dashboard, the alerts and the image refer only to what exists."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from router_svc.metrics import RouterMetrics
from tests.support.places import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "expertmesh.json"
ROW = re.compile(r"^\| `(expertmesh_\w+)` \| (\w+) \| ([\w, ]*)\|", re.MULTILINE)
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
HEADINGS = {
    *("Requests", "The hop to the experts", "Expert heat", "Pools", "Failovers", "APIs", "GPUs"),
}
TARGET_LABELS = {"job", "instance"}


def documented() -> dict[str, set[str]]:
    """Each series that docs/metrics.md promises, and its labels."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    return {
        name + suffix: {label.strip() for label in labels.split(",") if label.strip()}
        for name, kind, labels in ROW.findall(page)
        for suffix in SUFFIXES[kind]
    }


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def alert_expressions() -> list[str]:
    groups = load(MONITORING / "alerts.yml")["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("expression", dashboard_expressions() + alert_expressions())
def test_an_expression_names_only_documented_series_and_their_labels(expression: str) -> None:
    series = documented()
    found = re.findall(r"\b(expertmesh_\w+)(?:\{([^}]*)\})?", expression)
    assert found or re.search(r"\b(up|ALERTS)\b", expression), "no series of ours or Prometheus'"
    for name, matchers in found:
        assert name in series, f"{name} is not in docs/metrics.md"
        for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers):
            assert label in series[name] | TARGET_LABELS, f"{name} has no label {label}"


def test_the_dashboard_is_provisioned_and_every_panel_asks_the_provisioned_source() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    source = load(provisioning / "datasources" / "prometheus.yml")["datasources"][0]
    folder = load(provisioning / "dashboards" / "expertmesh.yml")["providers"][0]["options"]["path"]
    grafana = load(ROOT / "deploy" / "compose.yaml")["services"]["grafana"]
    assert f"./monitoring/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    assert {panel["title"] for panel in panels() if panel["type"] == "row"} == HEADINGS
    for panel in panels():
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == source["uid"], panel["title"]
            assert panel["targets"], panel["title"]


def test_requests_first_tokens_and_failures_are_shown_for_each_api() -> None:
    by_api = [one for one in dashboard_expressions() if re.search(r"by \([^)]*\bapi\b", one)]
    for series in ("requests_total[", 'requests_total{outcome!="ok"}', "ttft_seconds_bucket["):
        assert any(f"expertmesh_{series}" in one for one in by_api), series


def test_no_two_panels_share_an_id_or_a_place() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_has_a_severity_a_summary_and_a_test() -> None:
    rules = [rule for group in load(MONITORING / "alerts.yml")["groups"] for rule in group["rules"]]
    fired = {
        case["alertname"]
        for test in load(MONITORING / "alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
    assert fired == {rule["alert"] for rule in rules}


def test_no_label_of_a_target_hides_one_of_a_metric() -> None:
    """Prometheus would rename the metric's own label, and expressions would find nothing."""
    relabelled = {
        rule["target_label"]
        for job in load(MONITORING / "prometheus.yml")["scrape_configs"]
        for rule in job.get("relabel_configs", ())
        if "target_label" in rule
    }
    assert relabelled <= TARGET_LABELS
    assert not TARGET_LABELS & set().union(*documented().values())


def test_a_first_loss_is_an_increase() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry)
    for cause in ("stream", "lease"):
        labels = {"role": "pool", "cause": cause}
        assert registry.get_sample_value("expertmesh_router_losses_total", labels) == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (prometheus)")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        pytest.param(("test", "rules", "alerts_test.yml"), marks=pytest.mark.slow),
    ],
)
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_gets_every_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    allowed = set((ROOT / ".dockerignore").read_text().splitlines())
    needed = {package.partition(".")[0] for package in packages} | {"pyproject.toml", "setup.py"}
    missing = {f"!{name}" for name in needed} - allowed
    assert not missing, f".dockerignore lacks {missing}"
