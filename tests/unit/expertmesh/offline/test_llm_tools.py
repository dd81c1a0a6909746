"""What `LLM` offers beside answers: its tokenizer, its metrics, its prefix cache."""

from typing import Any

from expertmesh import SamplingParams
from tests.support.expertmesh.engine_idle import engine_idle
from tests.support.moe_model.tiny_text_model import EOS

GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}


class TestCacheAndMetrics:
    def test_the_prefix_cache_is_forgotten_when_nothing_runs(self, llm):
        prompt = {"prompt_token_ids": [7] * 64}
        params = SamplingParams(max_tokens=1)
        llm.generate(prompt, params)
        assert llm.generate(prompt, params)[0].num_cached_tokens > 0
        stream = llm.generate("Sort", SamplingParams(max_tokens=300, **GREEDY), stream=True)
        next(stream)
        assert llm.reset_prefix_cache() is False
        stream.close()
        assert engine_idle(llm)
        assert llm.reset_prefix_cache() is True
        assert llm.generate(prompt, params)[0].num_cached_tokens == 0
        assert llm.generate(prompt, params)[0].num_cached_tokens > 0

    def test_metrics_have_names_labels_and_values(self, llm):
        def counted() -> int:
            found = {metric.name: metric for metric in llm.get_metrics()}
            return found["expertmesh_attention_generated_tokens"].value

        before = counted()
        llm.generate("Sort", SamplingParams(max_tokens=5, **GREEDY))
        assert counted() == before + 5
        kinds = {type(metric).__name__: metric for metric in llm.get_metrics()}
        assert set(kinds) == {"Counter", "Gauge", "Histogram"}
        assert kinds["Histogram"].buckets["+Inf"] == kinds["Histogram"].count


def test_the_tokenizer_has_the_names_that_scripts_use(llm, tokenizer):
    view = llm.get_tokenizer()
    assert (view.eos_token_id, view.eos_token) == (EOS, "[e~[")
    assert view.bos_token_id == tokenizer.marker_ids[view.bos_token]
    ids = view.encode("Sort", add_special_tokens=False)
    assert view.encode("Sort") == ids == tokenizer.encode_text("Sort")
    assert view.decode([*ids, EOS]) == "Sort[e~["
    assert view.decode([*ids, EOS], skip_special_tokens=True) == "Sort"
    assert view.decode(EOS, skip_special_tokens=True) == ""
    assert view.decode(ids[0]) == tokenizer.decode(ids[:1])
