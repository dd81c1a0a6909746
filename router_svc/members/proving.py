"""Is the process at a member's address the one that joined, and does it hold what it says?

This is checked before a successor takes a live member's place: a stream may claim anything, and
the port that answered the dial-back might belong to the older process.
"""

import grpc

from protos import attention_pb2, attention_pb2_grpc, expert_pb2, expert_pb2_grpc
from router_svc.members.member import Member
from rpc.channel import Access, open_channel
from rpc.logs import cut, printable, quoted
from rpc.mesh.pieces import Pieces

ASK_TIMEOUT_S = 2.0
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def why_not_proven(member: Member, access: Access | None) -> str:
    """Why the process at the member's address is not proven to be the member and to hold what it
    announced; empty when it is.

    `access`: what the router shows to services that it calls.
    """
    role = "expert" if member.role == "pool" else "attention"
    try:
        async with open_channel(str(member.address), tls=access, server_role=role) as channel:
            if member.role == "pool":
                return await _pool_problem(member, channel)
            return await _attention_problem(member, channel)
    except grpc.aio.AioRpcError as error:
        if error.code() in _NO_ANSWER:  # gRPC's text changes from try to try
            return f"{member.address} does not say who it is: no answer"
        told = printable(cut(error.details() or "", 200))
        return f"{member.address} does not say who it is: {error.code().name}: {told}"
    except ValueError as error:
        return f"{member.address}: {error}"


async def _pool_problem(member: Member, channel: grpc.aio.Channel) -> str:
    stub = expert_pb2_grpc.ExpertPoolStub(channel)
    answer = await stub.DescribePool(expert_pb2.DescribePoolRequest(), timeout=ASK_TIMEOUT_S)
    hello, model = answer.hello, member.model
    if problem := _other(member, hello.pool_id, hello.incarnation, hello.checkpoint_id):
        return problem
    held = Pieces.from_message(
        hello.pieces, num_layers=model.num_layers, num_experts=model.num_experts, field="pieces"
    )
    if missing := member.ready - held:
        return f"{member.address} does not hold {len(missing)} of the pieces announced"
    return ""


async def _attention_problem(member: Member, channel: grpc.aio.Channel) -> str:
    stub = attention_pb2_grpc.AttentionStub(channel)
    status = await stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=ASK_TIMEOUT_S)
    return _other(member, status.attention_id, status.incarnation, status.checkpoint_id)


def _other(member: Member, member_id: str, incarnation: int, checkpoint_id: str) -> str:
    """How the process at the member's address differs from the member; empty: not at all."""
    if member_id != member.member_id:
        return f"the process at {member.address} is {quoted(member_id)}, not {member.member_id!r}"
    if incarnation != member.incarnation:
        return (
            f"the process at {member.address} has incarnation {incarnation},"
            f" not {member.incarnation}"
        )
    if checkpoint_id != member.model.checkpoint_id:
        return f"the process at {member.address} has checkpoint {quoted(checkpoint_id)}"
    return ""
