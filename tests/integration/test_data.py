"""`DataAnalysisAssistant` with the bundled demonstration model and the real sandbox.

The model that ships was not taught to write scripts: what is tried here is that the assistant says
so, keeps what it tried, and passes nothing off as a result. A model that can do it succeeds.
"""

from pathlib import Path

import pytest

from expertmesh import LLM, DataAnalysisAssistant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.usefixtures("work")
def test_what_the_demonstration_model_cannot_do_is_said(tmp_path: Path) -> None:
    data, out = tmp_path / "sales.csv", tmp_path / "out"
    data.write_text("city,price\nOslo,1\nRome,4\n")
    with LLM() as llm:
        sampling = {"temperature": 0, "max_tokens": 300}
        assistant = DataAnalysisAssistant(llm, sampling=sampling)
        done = assistant.analyse(data, "What is the sum of price?", out)
    assert len(list((out / "tries").glob("*-result.txt"))) == len(done.faults) + done.succeeded
    if done.succeeded:
        assert done.output.strip()
        assert done.report is not None
    else:
        assert (len(done.faults), done.output, done.conclusion) == (4, "", "")
        assert done.report is None
        assert not list(out.glob("*.md"))
