"""What `LLM` refuses, in which words, and what it only notes."""

import logging

import pytest

from expertmesh import LLM, SamplingParams
from tests.support.expertmesh.engine_idle import engine_idle

USER = [{"role": "user", "content": "Hello"}]


class TestErrors:
    @pytest.mark.parametrize(
        "prompts, params, words",
        [
            ("", None, "prompts: must not be empty"),
            (["a", ""], None, r"prompts\[1\]: must not be empty"),
            ({"text": "a"}, None, "prompt_token_ids"),
            ([[-1]], None, "token ids"),
            ([[1, 10**6]], None, "token ids"),
            ([[1] * 512], None, r"prompts\[0\]: .* prompt contains 512 input tokens"),
            (["a", "b"], [SamplingParams()], "got 1 for 2 prompts"),
            ("a", SamplingParams(logit_bias={10**6: 1}), "logit_bias"),
        ],
    )
    def test_wrong_requests_are_value_errors(self, llm, prompts, params, words):
        with pytest.raises(ValueError, match=words):
            llm.generate(prompts, params)
        assert engine_idle(llm)

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda llm: llm.generate(3), "prompts"),
            (lambda llm: llm.generate("a", {"temperature": 0}), "sampling_params"),
            (lambda llm: llm.generate("a", temperature=0), "temperature"),
            (lambda llm: llm.chat("Hello"), "messages"),
        ],
    )
    def test_wrong_types_are_type_errors(self, llm, call, words):
        with pytest.raises(TypeError, match=words):
            call(llm)

    @pytest.mark.parametrize(
        "fields, words",
        [
            ({"chat_template": "{{ messages }}"}, "chat_template"),
            ({"continue_final_message": True}, "continue_final_message"),
            ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ],
    )
    def test_nothing_may_change_the_template(self, llm, fields, words):
        with pytest.raises(ValueError, match=words):
            llm.chat(USER, **fields)

    def test_what_means_nothing_is_noted_in_a_line_each(self, llm, folder, caplog):
        caplog.set_level(logging.WARNING)
        for _ in range(2):
            llm.generate("a", SamplingParams(max_tokens=1), lora_request=object(), of_later=1)
        assert caplog.text.count("lora_request is ignored") == 1
        assert caplog.text.count("of_later is ignored") == 1
        caplog.clear()
        names = {"tensor_paralel_size": 2, "tool_call_parser": "minimax_m2", "swap_space": 0}
        with LLM(model=folder, kv_memory="8MiB", **names):
            lines = [record.getMessage() for record in caplog.records]
        assert sorted(line.split()[1] for line in lines) == sorted(names)
        assert any("did you mean tensor_parallel_size" in line for line in lines)

    @pytest.mark.parametrize(
        "fields, words",
        [
            ({"max_model_len": 131_072}, r"^max_model_len 131072 exceeds the model's 512$"),
            ({"max_num_seqs": 0}, "^max_num_seqs"),
            ({"kv_memory": "1"}, "^kv_memory"),
            ({"kv_host_memory": 1}, "^kv_host_memory 1 holds no block"),
            ({"device": "nowhere"}, "^device nowhere"),
        ],
    )
    def test_what_cannot_be_served_is_refused_by_the_arguments_name(self, folder, fields, words):
        with pytest.raises(ValueError, match=words) as error:
            LLM(model=folder, **fields)
        assert "--" not in str(error.value)

    def test_what_cannot_be_opened_is_refused(self, folder):
        with pytest.raises(ValueError, match="not a checkpoint folder"):
            LLM(model="MiniMaxAI/MiniMax-M2")
        with pytest.raises(ValueError, match="dtype"):
            LLM(model=folder, dtype="half")
