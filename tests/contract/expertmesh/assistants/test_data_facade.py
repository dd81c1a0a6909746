"""`DataAnalysisAssistant` in a program, by the names that tutorials use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import expertmesh
from expertmesh import DataAnalysisAssistant
from expertmesh.assistants.asking.structured import UselessAnswerError
from expertmesh.offline.sampling_params import SamplingParams
from expertmesh.outputs import CompletionOutput, RequestMetrics, RequestOutput
from tests.support.expertmesh.fake_openai_server import FakeServer
from tests.support.expertmesh.sandbox.working import work_folder
from tests.support.expertmesh.scripted_text import in_turn, says

CODE = 'print("total", 5.5)\n'


@pytest.fixture
def serve() -> Iterator[FakeServer]:
    server = FakeServer(says("not scripted"))
    yield server
    server.close()


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    path = tmp_path / "sales.csv"
    path.write_text("city,price\nOslo,1.5\nRome,4\n")
    return path


def asked(server: FakeServer) -> str:
    return "\n".join(one["content"] for body in server.bodies for one in body["messages"])


def test_code_is_generated_from_words_about_data(serve: FakeServer) -> None:
    serve.script = says(f"Here it is:\n```python\n{CODE}```\nRun it.")
    assistant = DataAnalysisAssistant(serve.url)
    code = assistant.generate_analysis_code(
        "Sales with the columns date, product, amount and region", "Find the best product by month"
    )
    assert code == CODE
    assert "the columns date, product" in asked(serve)
    assert "Find the best product by month" in asked(serve)
    serve.script = says("I cannot.")
    with pytest.raises(UselessAnswerError, match="no Python script"):
        assistant.generate_analysis_code("x", "y")


def test_code_is_generated_from_a_file(serve: FakeServer, sales: Path) -> None:
    serve.script = says(f"```python\n{CODE}```")
    DataAnalysisAssistant(serve.url).generate_analysis_code(str(sales), "Sum up the prices")
    assert f"pd.read_csv('{sales}')" in asked(serve)
    assert '"price": decimal' in asked(serve)


def test_a_concept_is_explained(serve: FakeServer) -> None:
    serve.script = says("How spread out numbers are.")
    assistant = DataAnalysisAssistant(serve.url, sampling={"temperature": 0})
    assert assistant.explain_statistical_concept("variance") == "How spread out numbers are."
    assert assistant.explain_statistical_concept("\u65b9\u5dee", level="advanced")
    assert "new to statistics" in asked(serve)
    assert "\u4ece\u4e8b\u7edf\u8ba1\u5de5\u4f5c" in asked(serve)
    assert serve.bodies[0]["temperature"] == 0
    with pytest.raises(ValueError, match="level: one of beginner, intermediate, advanced"):
        assistant.explain_statistical_concept("variance", "expert")


def test_pictures_are_suggested_for_words_and_for_files(serve: FakeServer, sales: Path) -> None:
    serve.script = says("A bar chart.")
    assistant = DataAnalysisAssistant(serve.url)
    assert assistant.suggest_visualization("monthly sales", "show the trend") == "A bar chart."
    assert assistant.suggest_visualization(sales, "compare cities") == "A bar chart."
    assert "Purpose: show the trend" in asked(serve)
    assert '"price": decimal' in asked(serve)


def test_a_file_is_analysed(serve: FakeServer, sales: Path, tmp_path: Path) -> None:
    with work_folder():
        pass  # there is a sandbox
    serve.script = in_turn(says("no"), says(f"```python\n{CODE}```"), says("It is 5.5, not 6.5."))
    done = DataAnalysisAssistant(serve.url).analyse(sales, "What is the total?", tmp_path / "out")
    assert done.succeeded
    assert done.conclusion == "It is 5.5, not 6.5 [not in the output]."
    assert (done.output, done.code) == ("total 5.5\n", CODE)
    assert done.report is not None
    assert done.report.is_file()
    assert len(done.faults) == 1


async def test_it_works_where_an_event_loop_runs_and_with_an_llm(sales: Path) -> None:
    one = {"question": "Which?", "why": "To know.", "columns": ["city"], "chart": "bar"}
    llm = FakeLLM("A table of cities.", "Prices.", json.dumps([one]))
    assistant = DataAnalysisAssistant(llm)
    assert assistant.explain(sales) == "A table of cities."
    assert assistant.explain(sales, column="price") == "Prices."
    assert [one.question for one in assistant.suggest(sales)] == ["Which?"]
    assert assistant.profile(sales).num_rows == 2


class FakeLLM:
    """An `LLM` whose answers are given."""

    max_model_len = 4000

    def __init__(self, *answers: str):
        self.answers = list(answers)

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams()

    def chat(self, messages: Any, sampling_params: Any = None, **others: Any) -> Any:
        message = {"role": "assistant", "content": self.answers.pop(0)}
        choice = CompletionOutput(0, "", [1, 2, 3], finish_reason="stop", message=message)
        metrics = RequestMetrics(0.0, first_token_latency=0.001)
        yield RequestOutput("1", None, [1] * 7, [choice], True, metrics)


def test_it_is_exported() -> None:
    assert "DataAnalysisAssistant" in expertmesh.__all__
