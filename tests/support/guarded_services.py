"""The three gRPC services behind their guards, and all their methods."""

import contextlib
from collections.abc import AsyncIterator

from attention_svc.servicer import AttentionServicer
from expert_svc.servicer import ExpertServicer
from protos import attention_pb2, expert_pb2, router_pb2
from router_svc.servicer import RouterServicer
from tests.support.attention_svc.generate_harness import running_service
from tests.support.expert_svc.execute_harness import running_pool
from tests.support.mesh_certificates import Authority
from tests.support.router_svc.harness import running_router

SERVICES = {
    "attention": (attention_pb2, "Attention", AttentionServicer),
    "expert": (expert_pb2, "ExpertPool", ExpertServicer),
    "router": (router_pb2, "Router", RouterServicer),
}


METHODS = [
    (role, f"/{service.full_name}/{method.name}", method)
    for role, (module, name, _) in SERVICES.items()
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
]


METHOD_IDS = [path for _, path, _ in METHODS]


@contextlib.asynccontextmanager
async def serving(role: str, authority: Authority | None = None) -> AsyncIterator[str]:
    """The address of a service of this role."""
    tls = authority.issue(role) if authority else None
    if role == "attention":
        async with running_service(tls=tls) as service:
            yield service.address
    elif role == "expert":
        async with running_pool(tls=tls) as pool:
            yield pool.address
    else:
        files = {"tls_ca": tls.ca, "tls_cert": tls.cert, "tls_key": tls.key} if tls else {}
        async with running_router(**files) as router:
            yield str(router.address)
