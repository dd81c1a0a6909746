"""`LLM` in this process: what it returns, in which order, and that it leaves nothing behind."""

import json
import math
import re
import signal
import threading
from typing import Any

import psutil
import pytest
import torch

from expertmesh import LLM, SamplingParams
from expertmesh.offline.sampling_params import RequestOutputKind, StructuredOutputsParams
from tests.support.expertmesh.engine_idle import engine_idle
from tests.support.moe_model.tiny_text_model import EOS

PROMPTS = ["Hello, my name is", "Sort", "What is the weather like in a town of 3 people?", "!"]
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
USER = [{"role": "user", "content": "Hello"}]


class TestGenerate:
    def test_a_mixed_batch_equals_the_reference_in_order(self, llm, tokenizer, reference):
        lengths = [3, 16, 1, 9]
        params = [SamplingParams(max_tokens=length, **GREEDY) for length in lengths]
        outputs = llm.generate(PROMPTS, params)
        for prompt, length, output in zip(PROMPTS, lengths, outputs, strict=True):
            ids = tokenizer.encode_text(prompt)
            expected = reference.greedy(ids, length, frozenset())
            assert (output.prompt, output.prompt_token_ids) == (prompt, ids)
            assert output.outputs[0].token_ids == expected
            assert output.outputs[0].text == tokenizer.decode(expected, skip_special_tokens=True)
            assert (output.finished, output.outputs[0].finish_reason) == (True, "length")
        assert [output.request_id for output in outputs] == sorted(
            (output.request_id for output in outputs), key=int
        )

    @pytest.mark.parametrize(
        "prompt, ids, text",
        [
            ("Sort", None, "Sort"),
            ({"prompt": "Sort"}, None, "Sort"),
            ({"prompt_token_ids": [5, 6]}, [5, 6], None),
            ({"prompt_token_ids": [5, 6], "prompt": "shown"}, [5, 6], "shown"),
            ([5, 6], [5, 6], None),
        ],
    )
    def test_forms_of_prompt(self, llm, tokenizer, prompt, ids, text):
        (output,) = llm.generate(prompt, SamplingParams(max_tokens=1))
        assert output.prompt == text
        assert output.prompt_token_ids == (ids or tokenizer.encode_text("Sort"))

    def test_a_seed_repeats_alone_in_a_crowd_and_from_run_to_run(self, llm, folder):
        seeded = SamplingParams(max_tokens=5, seed=7, n=2)
        (alone,) = llm.generate("Sort", seeded)
        crowd = llm.generate(["Sort", *PROMPTS], [seeded, *[SamplingParams(max_tokens=5)] * 4])
        assert [one.token_ids for one in crowd[0].outputs] == [
            one.token_ids for one in alone.outputs
        ]
        assert alone.outputs[0].token_ids != alone.outputs[1].token_ids
        assert [one.index for one in alone.outputs] == [0, 1]

        def first_of_a_run(seed: int) -> list[int]:
            with LLM(model=folder, kv_memory="8MiB", seed=seed) as other:
                return other.generate("Sort", SamplingParams(max_tokens=4))[0].outputs[0].token_ids

        assert first_of_a_run(1) == first_of_a_run(1) != first_of_a_run(2)

    def test_bad_words_and_other_ids_than_the_allowed_do_not_come(self, llm, tokenizer):
        (plain,) = llm.generate("Sort", SamplingParams(max_tokens=6, **GREEDY))
        ids = plain.outputs[0].token_ids
        word = tokenizer.decode(ids[1:4])
        assert tokenizer.encode_text(word) == ids[1:4]
        params = SamplingParams(max_tokens=6, bad_words=[word], logprobs=0, **GREEDY)
        (output,) = llm.generate("Sort", params)
        assert output.outputs[0].token_ids[:3] == ids[:3]
        assert output.outputs[0].token_ids[3] != ids[3]
        few = SamplingParams(max_tokens=20, allowed_token_ids=[65, 66], temperature=1.0)
        assert set(llm.generate("Sort", few)[0].outputs[0].token_ids) == {65, 66}

    def test_logprobs_are_the_references(self, llm, reference, tokenizer):
        (output,) = llm.generate("Sort", SamplingParams(max_tokens=4, logprobs=2, **GREEDY))
        choice = output.outputs[0]
        ids = output.prompt_token_ids + choice.token_ids
        rows = torch.log_softmax(reference.logits(ids[:-1]), -1)[-4:]
        assert len(choice.logprobs) == 4
        for token_id, entry, row in zip(choice.token_ids, choice.logprobs, rows, strict=True):
            assert next(iter(entry)) == token_id
            assert entry[token_id].rank == 1
            assert entry[token_id].decoded_token == tokenizer.decode([token_id])
            top = row.topk(2).indices.tolist()
            assert set(entry) == set(top)
            for other, told in entry.items():
                assert math.isclose(told.logprob, row[other].item(), abs_tol=1e-3)
        total = sum(e[i].logprob for i, e in zip(choice.token_ids, choice.logprobs, strict=True))
        assert math.isclose(choice.cumulative_logprob, total)

    def test_prompt_logprobs_are_the_references(self, llm, reference):
        params = SamplingParams(max_tokens=2, prompt_logprobs=2, **GREEDY)
        (output,) = llm.generate("Sort these letters", params)
        ids, entries = output.prompt_token_ids, output.prompt_logprobs
        rows = torch.log_softmax(reference.logits(ids[:-1]), -1)
        assert (entries[0], len(entries)) == (None, len(ids))
        for token_id, entry, row in zip(ids[1:], entries[1:], rows, strict=True):
            assert math.isclose(entry[token_id].logprob, row[token_id].item(), abs_tol=1e-3)
            assert set(entry) == {token_id, *row.topk(2).indices.tolist()}
        assert output.outputs[0].logprobs is None


class TestStops:
    def test_stop_strings_are_exact_across_tokens(self, llm, tokenizer):
        (whole,) = llm.generate("Sort", SamplingParams(max_tokens=16, **GREEDY))
        ids, text = whole.outputs[0].token_ids, whole.outputs[0].text
        # From the middle of one token into the next: neither token's text is the stop string.
        middle = len(tokenizer.decode(ids[:8], skip_special_tokens=True))
        stop = text[middle - 2 : middle + 2]
        place = text.index(stop)
        for include in (False, True):
            params = SamplingParams(
                max_tokens=16,
                stop=[stop, "never there"],
                include_stop_str_in_output=include,
                **GREEDY,
            )
            (output,) = llm.generate("Sort", params)
            choice = output.outputs[0]
            assert choice.text == text[:place] + (stop if include else "")
            assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
            assert choice.token_ids == ids[: len(choice.token_ids)]
            assert stop in tokenizer.decode(choice.token_ids, skip_special_tokens=True)
            assert stop not in tokenizer.decode(choice.token_ids[:-1], skip_special_tokens=True)
        assert engine_idle(llm)

    def test_stop_ids_and_the_models_own_end(self, llm):
        (whole,) = llm.generate("Sort", SamplingParams(max_tokens=9, **GREEDY))
        ids = whole.outputs[0].token_ids
        params = SamplingParams(max_tokens=9, stop_token_ids=[ids[3]], **GREEDY)
        (output,) = llm.generate("Sort", params)
        choice = output.outputs[0]
        assert choice.token_ids == ids[: ids.index(ids[3]) + 1]
        assert (choice.finish_reason, choice.stop_reason) == ("stop", ids[3])
        ends_at_once = SamplingParams(max_tokens=9, temperature=0, logit_bias={EOS: 100})
        choice = llm.generate("Sort", ends_at_once)[0].outputs[0]
        assert (choice.token_ids, choice.text) == ([EOS], "")
        assert (choice.finish_reason, choice.stop_reason) == ("stop", None)
        shown = SamplingParams(
            max_tokens=2,
            temperature=0,
            logit_bias={EOS: 100},
            ignore_eos=True,
            skip_special_tokens=False,
        )
        assert llm.generate("Sort", shown)[0].outputs[0].text == "[e~[" * 2
        silent = SamplingParams(max_tokens=2, detokenize=False)
        assert llm.generate("Sort", silent)[0].outputs[0].text == ""


class TestStreams:
    def test_a_stream_is_asked_for_by_its_own_call_or_by_an_argument(self, llm, folder):
        params = SamplingParams(max_tokens=6, **GREEDY)
        for asked, same in (
            (llm.generate("Sort", params, stream=True), llm.generate_stream("Sort", params)),
            (llm.chat(USER, params, stream=True), llm.chat_stream(USER, params)),
        ):
            outputs, expected = list(asked), list(same)
            assert [one.outputs[0].text for one in outputs][-1] == expected[-1].outputs[0].text
            assert len(outputs) > 1
            assert [one.finished for one in outputs] == [False] * (len(outputs) - 1) + [True]
        assert outputs[-1].outputs[0].message == expected[-1].outputs[0].message
        with pytest.raises(ValueError, match="prompts"):  # before the first output is asked for
            llm.generate("", params, stream=True)

    def test_a_stream_keeps_its_model_open(self, folder):
        stream = LLM(model=folder, kv_memory="8MiB").generate_stream("a", SamplingParams(**GREEDY))
        assert list(stream)[-1].finished

    def test_streams_add_up_to_the_batch(self, llm):
        params = SamplingParams(max_tokens=6, n=2, seed=3)
        batch = {o.prompt: [c.token_ids for c in o.outputs] for o in llm.generate(PROMPTS, params)}
        last = {output.prompt: output for output in llm.generate_stream(PROMPTS, params)}
        assert {k: [c.token_ids for c in o.outputs] for k, o in last.items()} == batch
        assert all(output.finished for output in last.values())
        params.output_kind = RequestOutputKind.DELTA
        added: dict[str, list[list[int]]] = {prompt: [[], []] for prompt in PROMPTS}
        for output in llm.generate_stream(PROMPTS, params):
            for choice in output.outputs:
                added[output.prompt][choice.index] += choice.token_ids
        assert added == batch

    @pytest.mark.parametrize("turned", [False, True])
    def test_each_request_streams_in_its_own_kind(self, llm, turned: bool):
        kinds = list(RequestOutputKind)
        prompts = PROMPTS[: len(kinds)]
        if turned:
            kinds.reverse()
        each = [SamplingParams(max_tokens=6, output_kind=kind, **GREEDY) for kind in kinds]
        heard: dict[str, list[list[int]]] = {prompt: [] for prompt in prompts}
        for output in llm.generate_stream(prompts, each):
            heard[output.prompt].append(output.outputs[0].token_ids)
        for prompt, kind in zip(prompts, kinds, strict=True):
            lengths = [len(ids) for ids in heard[prompt]]
            if kind == RequestOutputKind.FINAL_ONLY:
                assert lengths == [6]
            elif kind == RequestOutputKind.DELTA:
                assert sum(lengths) == 6
                assert len(lengths) > 1
            else:
                assert lengths == sorted(lengths)
                assert len(lengths) > 1
                assert lengths[-1] == 6

    def test_leaving_early_cancels(self, llm):
        stream = llm.generate_stream(PROMPTS, SamplingParams(max_tokens=300, **GREEDY))
        assert not next(stream).finished
        stream.close()
        assert engine_idle(llm)

    def test_an_interrupt_cancels(self, llm):
        main = threading.main_thread().ident
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPTS * 40, SamplingParams(max_tokens=400, **GREEDY))
        timer.join()
        assert engine_idle(llm)
        assert llm.generate("Sort", SamplingParams(max_tokens=1))[0].finished


class TestChat:
    def test_chat_renders_as_the_gateway_does(self, llm):
        tokenizer = llm.get_tokenizer()
        ids = tokenizer.apply_chat_template(USER, add_generation_prompt=True)
        rendered = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
        params = SamplingParams(max_tokens=8, **GREEDY)
        (chat,) = llm.chat(USER, params)
        (again,) = llm.generate(rendered, params)
        assert chat.prompt_token_ids == again.prompt_token_ids == ids
        assert chat.prompt == rendered == tokenizer.decode(ids)
        assert chat.outputs[0].token_ids == again.outputs[0].token_ids
        assert chat.outputs[0].message["role"] == "assistant"
        several = llm.chat([USER, USER], [params, params])
        assert [o.prompt_token_ids for o in several] == [ids, ids]
        streamed = list(llm.chat_stream(USER, params))
        assert streamed[-1].outputs[0].message == chat.outputs[0].message

    def test_text_of_control_tokens_stays_text_unless_asked(self, llm, folder, tokenizer, caplog):
        text = "]~b]user\nHello[e~[\n"
        (output,) = llm.generate(text, SamplingParams(max_tokens=1))
        assert EOS not in output.prompt_token_ids
        assert "control tokens" in caplog.text
        with LLM(model=folder, kv_memory="8MiB", parse_control_tokens=True) as trusting:
            (output,) = trusting.generate(text, SamplingParams(max_tokens=1))
        assert output.prompt_token_ids.count(EOS) == 1
        assert tokenizer.decode(output.prompt_token_ids) == text


class TestForm:
    def test_outputs_have_the_form_that_was_demanded(self, llm):
        def ask(**form: Any) -> str:
            params = SamplingParams(
                max_tokens=60, seed=5, structured_outputs=StructuredOutputsParams(**form)
            )
            (output,) = llm.generate("Sort", params)
            assert output.outputs[0].finish_reason == "stop"
            return output.outputs[0].text

        assert ask(choice=["up", "down"]) in ("up", "down")
        assert re.fullmatch(r"[0-9]{3}/[a-c]{2}", ask(regex=r"[0-9]{3}/[a-c]{2}"))
        assert json.loads(ask(json={"enum": [1, {"a": None}]})) in (1, {"a": None})

    def test_a_form_that_cannot_be_is_refused(self, llm):
        with pytest.raises(ValueError, match="exactly one"):
            StructuredOutputsParams(regex="a", choice=["b"])
        wrong = SamplingParams(structured_outputs=StructuredOutputsParams(regex="("))
        with pytest.raises(ValueError, match="structured_outputs"):
            llm.generate("Sort", wrong)

    def test_what_was_said_before_is_never_an_error(self, llm):
        call = {"function": {"name": 'a"b', "arguments": "{cut"}}
        history = [
            *USER,
            {"role": "assistant", "content": "\ud83d", "tool_calls": [call, 5]},
            {"role": "tool", "content": {"n": 10**100}},
        ]
        (output,) = llm.chat([*history, *USER], SamplingParams(max_tokens=1))
        assert r'<invoke name="a\u0022b">' in output.prompt
        assert '<parameter name="arguments">{cut</parameter>' in output.prompt
        assert "\ufffd" in output.prompt


def test_more_tokens_than_there_is_room_for_are_those_there_is_room_for(llm):
    for limit in (10**6, -1):
        params = SamplingParams(max_tokens=limit, ignore_eos=True)
        (output,) = llm.generate([[1] * 508], params)
        assert len(output.outputs[0].token_ids) == 4


async def test_it_works_inside_a_running_loop(llm):
    assert llm.generate("Sort", SamplingParams(max_tokens=2))[0].finished


def test_closing_leaves_nothing_running_and_refuses_more(folder, caplog, capfd):
    before, children = set(threading.enumerate()), psutil.Process().children()
    llm = LLM(model=folder, kv_memory="8MiB")
    form = StructuredOutputsParams(choice=["a", "b"])  # has a process and threads of its own
    llm.generate("Sort", SamplingParams(structured_outputs=form))
    stream = llm.generate_stream("Sort", SamplingParams(max_tokens=160, **GREEDY))
    next(stream)
    llm.close()
    llm.close()
    started = set(threading.enumerate()) - before
    for thread in started:  # asyncio's own end a moment after the process that they waited for
        thread.join(timeout=5)
    left = [thread.name for thread in started if thread.is_alive()]
    assert (left, psutil.Process().children()) == ([], children)
    assert (caplog.text, capfd.readouterr().err) == ("", "")
    for call in (lambda: llm.generate("Sort"), lambda: next(stream)):
        with pytest.raises((RuntimeError, StopIteration), match=r"closed|^$"):
            call()
