"""How does the router show the mesh to people, and to Prometheus' service discovery?"""

from collections import Counter as Tally
from typing import Any

from protos import router_pb2
from router_svc.members.member import ROLE_NAMES, Member
from router_svc.mesh import Mesh

STATE_NAMES = {
    router_pb2.MEMBER_STATE_LOADING: "loading",
    router_pb2.MEMBER_STATE_READY: "ready",
    router_pb2.MEMBER_STATE_DRAINING: "draining",
}


def state_name(member: Member) -> str:
    """loading, ready, draining, or unreachable when it cannot be dialled back."""
    return STATE_NAMES[member.state] if member.reachable else "unreachable"


def service_discovery(mesh: Mesh) -> list[dict[str, Any]]:
    """`GET /sd`: the members' /metrics addresses in the form of Prometheus' http_sd_configs."""
    return [
        {
            "targets": [str(member.metrics_address)],
            "labels": {"role": member.role, "id": member.member_id},
        }
        for member in sorted(mesh.members, key=lambda member: member.key)
        if member.metrics_address is not None
    ]


def status_line(mesh: Mesh, watchers: int) -> str:
    """The state of the mesh as one line for the log."""
    tally = Tally((member.role, state_name(member)) for member in mesh.members)
    roles = Tally(member.role for member in mesh.members)
    shown = " ".join(
        f"{role}s={tally[role, 'ready']}/{roles[role]}" for role in ROLE_NAMES.values()
    )
    latest = mesh.book.latest
    version = f"{latest.version.epoch}.{latest.version.counter}" if latest else "none"
    uncovered = len(mesh.book.uncovered)
    return f"{shown} ready, uncovered={uncovered} topology={version} watchers={watchers}"
