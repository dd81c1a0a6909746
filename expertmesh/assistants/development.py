"""How does a Python program use the development assistant? `DevelopmentAssistant(model)`.

from expertmesh import LLM, DevelopmentAssistant

assistant = DevelopmentAssistant("http://127.0.0.1:8000")
print(assistant.code_review("def last(xs):\\n    return xs[len(xs)]\\n"))
"""

from pathlib import Path

from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.asking.structured import whole
from expertmesh.assistants.assistant import Assistant
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.reviewing.findings import Review
from expertmesh.assistants.reviewing.passages import fenced, of_text
from expertmesh.assistants.reviewing.review import Reviewer, language_of_code
from expertmesh.assistants.testing.modules import Module
from expertmesh.assistants.testing.workshop import Workshop
from expertmesh.assistants.testing.write_tests import MOST_MUTANTS, TestWriter, WrittenTests

_ENDINGS = {
    "python": ".py", "javascript": ".js", "typescript": ".ts", "c": ".c", "c++": ".cpp",
    "java": ".java", "go": ".go", "rust": ".rs", "shell": ".sh", "bash": ".sh",
}  # fmt: skip
_MODULE = "code_under_test"


class DevelopmentAssistant(Assistant):
    """Reviews code, writes tests that hold, explains errors. `expertmesh dev` does more."""

    def code_review(self, code: str, language: str = "python", focus: str | None = None) -> Review:
        """What is wrong with the code, at lines that it has; `print` shows it by lines.

        `focus`: what to look for above all, in whose language the model is asked.
        """
        name = f"code{_ENDINGS.get(language.lower(), '')}"
        told = language_of(focus) if focus else language_of_code([code])

        async def work(model: TextModel) -> Review:
            reviewer = Reviewer(model, watching=self._watching, language=told, focus=focus)
            return await reviewer.review([of_text(code, name)])

        return self._with_model(work)

    def generate_test_cases(
        self, code: str, function: str | None = None, most_mutants: int = MOST_MUTANTS
    ) -> WrittenTests:
        """Tests of Python code, which were run on it in the sandbox; `print` shows their source.

        `holds` says whether they notice mistakes that were made on purpose. They import the code
        from a module `code_under_test`, and it may import what is installed here.
        Raises SyntaxError, ValueError for a function that there is not, SandboxUnavailableError.
        """

        async def work(model: TextModel) -> WrittenTests:
            with Workshop() as workshop:
                workshop.write(f"{_MODULE}.py", code)
                writer = TestWriter(
                    model,
                    workshop,
                    Module(Path(), f"{_MODULE}.py", ".", _MODULE),
                    code,
                    file=f"test_{_MODULE}.py",
                    function=function,
                    most_mutants=most_mutants,
                    language=language_of_code([code]),
                    watching=self._watching,
                )
                return await writer.write()

        return self._with_model(work)

    def debug_assistance(self, error_message: str, code: str = "") -> str:
        """Cause and cure of an error, in words. Nothing is run: `expertmesh dev debug` does."""
        passage = of_text(code, "code.py")
        shown = f"\n\n{passage.block()}" if passage.rows else ""
        told = language_of_code([code])
        text = prompt("explain_error", told, error=fenced(error_message), code=shown)

        async def work(model: TextModel) -> str:
            self._watching.begins("explaining the error")
            messages = [{"role": "user", "content": text}]
            answer = await model.ask(messages, on_piece=self._watching.piece)
            self._watching.answered(answer.reply)
            return whole(answer).text

        return self._with_model(work)
