"""A router's mesh without its server, and what members say to it."""

from protos import router_pb2
from router_svc.mesh import Mesh
from router_svc.placement.goals import PlacementRules
from rpc.mesh.pieces import Pieces

POOL, ATTENTION = router_pb2.MEMBER_ROLE_POOL, router_pb2.MEMBER_ROLE_ATTENTION


READY = router_pb2.MEMBER_STATE_READY


EVERYTHING = Pieces.all_of(2, 4)


EPOCH = 1000


def mesh_of(*, restarted=False, **options) -> Mesh:
    options = {"lease_s": 5.0, "adopt_s": 10.0, "max_members": 10, "checkpoint_id": "", **options}
    rules = options.pop("rules", PlacementRules(plan_delay_s=0.0))
    return Mesh(epoch=EPOCH, restarted=restarted, now_s=0.0, rules=rules, **options)


def register(name="a", role=POOL, requested=None, capacity=0, **fields) -> router_pb2.Register:
    fields = {"incarnation": 1, "process_key": b"one process", **fields}
    offer = None
    if role == POOL:
        offer = router_pb2.PoolOffer(
            available=EVERYTHING.to_message(),
            requested=requested.to_message() if requested else None,
            capacity_pieces=capacity,
        )
    return router_pb2.Register(
        role=role,
        member_id=name,
        address="10.0.0.1:1",
        checkpoint_id="one",
        num_layers=2,
        num_experts=4,
        protocol_major=1,
        offer=offer,
        **fields,
    )


def status(ready: Pieces | None = None, state=READY, **fields) -> router_pb2.MemberStatus:
    return router_pb2.MemberStatus(ready=(ready or Pieces()).to_message(), state=state, **fields)


def holds(made) -> dict[str, Pieces]:
    return {member.member_id: member.hold for member, _ in made}
