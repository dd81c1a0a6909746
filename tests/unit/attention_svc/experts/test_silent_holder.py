"""The only holder answers pings but no calls: when does its outage begin, and who learns of it?"""

import asyncio

import pytest

from attention_svc.experts import call as expert_call
from attention_svc.experts.outages import GRACE_S
from attention_svc.experts.transport import ExpertsUnavailable
from tests.support.attention_svc.expert_world import ALL, World, result


async def test_the_time_of_a_silent_holder_begins_with_its_silence_not_with_the_next_look(
    monkeypatch,
):
    """Its predicted time decides when it is late, for a long prompt in minutes; not twice that."""
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.8)
    monkeypatch.setattr(expert_call, "SILENCE_LIMIT_S", 0.05)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, wanted = world.call(timeout_s=0.1)
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(ExpertsUnavailable, match="does not answer"):
        await result(call, wanted)
    assert call._time is not None
    assert 0.8 <= call._time.began_s - started_s < 1.5


async def test_pieces_of_a_silent_holder_are_out_while_they_are_waited_for_not_only_after(
    monkeypatch,
):
    """Otherwise the service would accept new requests for as long as the wait lasts."""
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(expert_call, "SILENCE_LIMIT_S", 0.05)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, wanted = world.call(timeout_s=1000.0)
    waiting = asyncio.ensure_future(result(call, wanted))
    async with asyncio.timeout(5):
        while not world.context.outages.open:
            await asyncio.sleep(0.005)
    now_s = asyncio.get_running_loop().time()
    assert "pool a does not answer" in world.context.outages.reason(now_s + GRACE_S)
    assert not waiting.done()
    waiting.cancel()
