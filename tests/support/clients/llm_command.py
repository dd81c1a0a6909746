"""How does the command `llm` find the gateway, and how is it asked?"""

from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import environments
from tests.support.clients.programs import Finished, run
from tests.support.clients.sdks import Place, Task


@dataclass(frozen=True)
class LlmCommand:
    """Simon Willison's `llm`, with the gateway as two extra models: for chat, and `plain`."""

    requirement: str

    def ask(self, place: Place, home: Path, *words: str) -> Finished:
        (home / "extra-openai-models.yaml").write_text(
            f"- model_id: mesh\n  model_name: {place.model}\n  api_base: {place.url}/v1\n"
            "  api_key_name: mesh\n  supports_tools: true\n  supports_schema: true\n"
            f"- model_id: plain\n  model_name: {place.model}\n  api_base: {place.url}/v1\n"
            "  api_key_name: mesh\n  completion: true\n"
        )
        command = environments.python("llm", self.requirement).with_name("llm")
        variables = {"LLM_USER_PATH": str(home)}
        return run([str(command), "-m", "mesh", "--key", place.key, *words], home, variables)

    def run_loop(self, place: Place, home: Path, task: Task, *, streamed: bool = False) -> str:
        words = ["-o", "temperature", "0", *([] if streamed else ["--no-stream"])]
        done = self.ask(place, home, *words, "--functions", task.python, task.question)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


LLM = LlmCommand("llm==0.36")
