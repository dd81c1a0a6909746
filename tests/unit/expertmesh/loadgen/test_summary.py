"""How timings are summarised: every field of the benchmark, from records made by hand."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.clients.http_body import AnswerReader, BadAnswer, EventSplitter
from expertmesh.loadgen.arrivals import start_offsets_s
from expertmesh.loadgen.plot import MISSING, save_plot
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.report import report
from expertmesh.loadgen.summary import (
    hit_rate,
    peak_concurrency,
    peak_tokens_per_s,
    percentile,
    summarise,
    time_share,
)
from expertmesh.loadgen.workload import RandomShape, file_conversations, random_conversations


def record(start: float, *arrivals: tuple[float, int], prompt: int = 10, **more) -> Record:
    one = Record(started_s=start, prompt_tokens=prompt, **more)
    for when, so_far in arrivals:
        one.arrive(when, so_far)
    return one


FIRST = record(100.0, (100.5, 1), (100.6, 3), (101.0, 5), cached_tokens=5)
SECOND = record(100.2, (100.4, 1), prompt=30, cached_tokens=0)


def test_the_fields_of_two_requests():
    result = summarise([FIRST, SECOND], percentiles=(50, 99))
    assert (result["completed"], result["failed"], result["cancelled"]) == (2, 0, 0)
    assert result["duration"] == pytest.approx(1.0)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (40, 6)
    assert result["request_throughput"] == pytest.approx(2)
    assert result["output_throughput"] == pytest.approx(6)
    assert result["total_token_throughput"] == pytest.approx(46)
    assert result["max_concurrent_requests"] == 2
    assert result["prefix_cache_hit_rate"] == pytest.approx(5 / 40)
    assert result["mean_ttft_ms"] == pytest.approx((500 + 200) / 2)
    assert result["median_ttft_ms"] == pytest.approx(350)
    assert result["p50_ttft_ms"] == pytest.approx(350)
    assert result["p99_ttft_ms"] == pytest.approx(497)
    # Four tokens after the first in 0.5 s; a single token has no time per later one.
    assert result["mean_tpot_ms"] == pytest.approx(125)
    # Two gaps between arrivals, however many tokens each brought.
    assert result["mean_itl_ms"] == pytest.approx(250)
    assert result["mean_e2el_ms"] == pytest.approx((1000 + 200) / 2)


def test_only_complete_answers_count():
    failed = record(99.0, (99.1, 1), error="HTTP 500")
    cut_off = record(99.0, (99.1, 1), cancelled=True)
    silent = record(99.0)
    result = summarise([FIRST, failed, cut_off, silent])
    assert (result["completed"], result["failed"], result["cancelled"]) == (1, 1, 1)
    assert result["duration"] == pytest.approx(1.0)
    assert result["total_output_tokens"] == 5


def test_nothing_measured_is_none_and_valid_json():
    result = summarise([])
    assert (result["completed"], result["duration"], result["output_throughput"]) == (0, 0.0, 0.0)
    assert result["p99_ttft_ms"] is None
    assert result["prefix_cache_hit_rate"] is None
    json.dumps(result, allow_nan=False)
    assert "Successful requests:" in report(result, "Result")


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    st.floats(0, 100),
)
def test_percentiles_are_numpys(samples, percent):
    expected = float(np.percentile(samples, percent))
    assert percentile(percent, samples) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_an_end_makes_room_for_a_start_at_the_same_instant():
    chain = [record(float(i), (i + 1.0, 1)) for i in range(3)]
    assert peak_concurrency(chain) == 1
    assert peak_concurrency([*chain, record(0.5, (2.5, 1))]) == 2
    assert peak_concurrency([]) == 0


def test_the_busiest_second_is_any_second():
    assert peak_tokens_per_s([record(0.0, (0.9, 4), (1.1, 9), (1.95, 10))]) == 9
    assert peak_tokens_per_s([]) == 0


def test_goodput_counts_requests_that_keep_to_every_limit():
    assert summarise([FIRST, SECOND], goodput={"ttft": 300.0})["request_goodput"] == pytest.approx(
        1
    )
    both = {"ttft": 600.0, "itl": 350.0}
    assert summarise([FIRST, SECOND], goodput=both)["request_goodput"] == pytest.approx(1)


def test_shares_of_the_servers_own_account():
    timings = {
        "attention_ms": 4,
        "network_ms": 1,
        "pool_queue_ms": 1,
        "pool_compute_ms": 3,
        "sampling_ms": 1,
        "total_ms": 99,
    }
    told = [record(0.0, (1.0, 1), timings=timings)]
    assert time_share(told, ("network_ms", "pool_queue_ms", "pool_compute_ms")) == pytest.approx(
        0.5
    )
    assert time_share([FIRST], ("network_ms",)) is None
    assert hit_rate([record(0.0, (1.0, 1))]) is None
    text = report(summarise(told), "Result")
    assert re.search(r"Time in expert RPC \(% of steps\): +50\.0\n", text)
    assert "Prefix cache hit rate" not in text


@pytest.mark.parametrize("burstiness", [0.2, 1.0, 20.0])
def test_arrivals_keep_the_rate_and_repeat(burstiness):
    offsets = start_offsets_s(400, 8.0, burstiness, seed=3)
    assert offsets == start_offsets_s(400, 8.0, burstiness, seed=3) == sorted(offsets)
    assert offsets[0] == 0.0
    assert offsets[-1] == pytest.approx(399 / 8)
    gaps = np.diff(offsets)
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(burstiness), rel=0.2)
    assert start_offsets_s(3, math.inf, 1.0, 0) == [0.0] * 3
    for rate, shape in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"request-rate|burstiness"):
            start_offsets_s(3, rate, shape, 0)


class TestWorkload:
    def test_random_prompts_have_the_lengths_and_share_the_prefix(self):
        shape = RandomShape(input_len=20, output_len=8, prefix_len=5, range_ratio=0.5)
        made = random_conversations(shape, 50, 1, ids=range(100, 200))
        assert made == random_conversations(shape, 50, 1, ids=range(100, 200))
        turns = [conversation.turns[0] for conversation in made]
        assert len({turn.ids[:5] for turn in turns}) == 1
        assert {len(turn.ids) - 5 for turn in turns} <= set(range(10, 31))
        assert len({turn.output_len for turn in turns}) > 1
        words = random_conversations(RandomShape(input_len=20, turns=3), 2, 1)
        assert [len(turn.text.split()) for turn in words[0].turns] == [20] * 3

    def test_files_of_three_kinds(self, tmp_path):
        chat = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "two"},
        ]
        shared = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
        lines = [{"prompt": "a", "output_len": 3}, {"messages": chat}, {"conversations": shared}]
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        made = file_conversations(path, 6, 0, output_len=9, multi_turn=True)
        texts = sorted([turn.text for turn in one.turns] for one in made)
        assert texts == sorted([["a"], ["one", "two"], ["hi"]] * 2)
        assert {one.system for one in made} == {"", "Be brief."}
        assert {turn.output_len for one in made for turn in one.turns} == {3, 9}
        path.write_text(json.dumps(lines))
        first_only = file_conversations(path, 3, 0, output_len=9, multi_turn=False)
        assert sorted(len(one.turns) for one in first_only) == [1, 1, 1]

    @pytest.mark.parametrize(
        "text, words",
        [
            ("", "no entry"),
            ("{", "not JSON"),
            ('{"messages": []}', ":1: no prompt"),
            ("[3]", ":1:"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path, text, words):
        path = tmp_path / "data.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            file_conversations(path, 1, 0, output_len=1, multi_turn=False)
        with pytest.raises(ValueError, match="--dataset"):
            file_conversations(tmp_path / "none", 1, 0, output_len=1, multi_turn=False)


EVENTS = b': hello\n\ndata: {"a": 1}\n\ndata:two\ndata: lines\r\n\r\ndata: [DONE]\n\n'


def answer(body: bytes, coding: str) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n"
    if coding == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if coding == "close":
        return head + b"\r\n" + body
    parts = [body[i : i + 7] for i in range(0, len(body), 7)]
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class TestHttp:
    @given(
        st.sampled_from(["length", "close", "chunked"]), st.lists(st.integers(1, 40), max_size=9)
    )
    def test_cuts_change_nothing(self, coding, cuts):
        data = answer(EVENTS, coding)
        reader, splitter, found = AnswerReader(), EventSplitter(), []
        place = 0
        for cut in [*cuts, len(data)]:
            found += splitter.feed(reader.feed(data[place : place + cut]))
            place += cut
        if coding == "close":
            reader.close()
        assert reader.ended
        assert found == [b'{"a": 1}', b"two\nlines", b"[DONE]"]

    @pytest.mark.parametrize(
        "data",
        [
            b"SSH-2.0\r\n\r\n",
            answer(EVENTS, "chunked")[:-9],
            answer(b"x", "length")[:-1],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    def test_broken_answers_are_told(self, data):
        reader = AnswerReader()
        with pytest.raises(BadAnswer):  # noqa: PT012
            reader.feed(data)
            reader.close()


def test_a_picture_needs_matplotlib_and_is_drawn_with_it(tmp_path, monkeypatch):
    path = tmp_path / "run.png"
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "matplotlib.figure", None)
        with pytest.raises(ValueError, match="pip install matplotlib"):
            save_plot([FIRST], path, "title")
    assert "pip install" in MISSING
    pytest.importorskip("matplotlib")
    save_plot([FIRST, SECOND], path, "title")
    assert path.read_bytes().startswith(b"\x89PNG")
