"""Grammars in engine steps: computed while the experts work, masking only their own row."""

from attention_svc.sequence.sequence import SequenceEnd
from protos import attention_pb2
from tests.support.attention_svc.fake_grammars import ONLY, OnlyNine, add, ended
from tests.support.attention_svc.generate_harness import WAIT_S, running_service, until


async def test_the_mask_is_computed_while_the_experts_work():
    async with running_service() as service:
        service.transport.gate.clear()
        grammar = OnlyNine()
        sequence = add(service, grammar)
        await until(lambda: grammar.asked == 1, WAIT_S)
        assert service.transport.steps == 1
        assert sequence.output_ids == []  # the first layer still waits for its experts
        service.transport.gate.set()
        tokens, outcome = await ended(sequence)
        assert [token.token_id for token in tokens] == [ONLY] * 3
        assert (outcome.reason, outcome.stop_token_id) == ("STOP", 0)
        assert grammar.asked == 3


async def test_rows_without_a_grammar_are_left_alone_and_raw_logprobs_stay_raw():
    async with running_service() as service:
        free = add(service, None, temperature=1.0, logprobs=True)
        held = add(service, OnlyNine(), temperature=1.0, logprobs=True, min_tokens=9)
        (some, _), (nines, _) = await ended(free), await ended(held)
        alone = add(service, None, temperature=1.0, logprobs=True)
        again, _ = await ended(alone)
        assert [token.token_id for token in again] == [token.token_id for token in some]
        assert len({token.token_id for token in some}) > 1
        assert [token.token_id for token in nines] == [ONLY] * 3
        assert nines[0].logprob < -0.1  # of the distribution before the mask


async def test_a_grammar_against_a_ban_ends_in_an_error_for_that_request_only():
    async with running_service() as service:
        ban = [attention_pb2.LogitBias(token_id=ONLY, bias=-100)]
        dead, fine = add(service, OnlyNine(), logit_bias=ban), add(service, OnlyNine())
        _, outcome = await ended(dead)
        assert (outcome.reason, outcome.error) == (
            "ERROR",
            "every token is masked by the request's controls",
        )
        assert [token.token_id for token in (await ended(fine))[0]] == [ONLY] * 3


async def test_an_abort_while_masks_are_computed_ends_that_sequence_only():
    async with running_service() as service:
        service.transport.gate.clear()
        first, second = add(service, OnlyNine()), add(service, OnlyNine())
        await until(lambda: service.transport.steps == 1, WAIT_S)
        service.engine.finish(first, SequenceEnd(reason="ABORTED"))
        service.transport.gate.set()
        assert (await ended(first))[1].reason == "ABORTED"
        assert [token.token_id for token in (await ended(second))[0]] == [ONLY] * 3
        await service.until_idle()
