"""`code_runner`: run a program of the work folder, or code in one of the languages installed."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expertmesh.agent.sandbox.policy import Limits, Sandbox
from expertmesh.agent.tools.command_result import PYTHON, USUAL, command_result
from expertmesh.agent.tools.in_sandbox import InSandbox
from expertmesh.agent.tools.tool import Effect, Result, Status, object_schema

_VISIBLE = "/usr/local/bin:/usr/bin:/bin"
"""Where the sandbox finds programs."""
_COMPILE_C = 'p="$(mktemp -d)/program" && gcc -x c -O1 -o "$p" "$0" && exec "$p" "$@"'


@dataclass(frozen=True)
class Language:
    """How a file of this language is run: the command, before the file and its arguments."""

    program: str
    command: tuple[str, ...]
    suffixes: tuple[str, ...]


_LANGUAGES = {
    "python": Language(PYTHON, (PYTHON,), (".py",)),
    "bash": Language("bash", ("bash",), (".sh", ".bash")),
    "javascript": Language("node", ("node",), (".js", ".mjs", ".cjs")),
    "ruby": Language("ruby", ("ruby",), (".rb",)),
    "perl": Language("perl", ("perl",), (".pl",)),
    "c": Language("gcc", ("sh", "-c", _COMPILE_C), (".c",)),
}


class CodeRunner(InSandbox):
    """Runs files by their suffix, and code that is given as text from a file in /tmp."""

    name = "code_runner"
    effect = Effect.RUNS

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits = USUAL,
        *,
        on_output: Callable[[str], None] | None = None,
    ):
        super().__init__(sandbox, limits, on_output=on_output)
        self._languages = {
            name: one
            for name, one in _LANGUAGES.items()
            if name == "python" or shutil.which(one.program, path=_VISIBLE)
        }
        self.description = (
            "Run a program file of the work folder, chosen by its suffix, or code in another "
            f"language. Languages here: {', '.join(self._languages)}."
        )
        self.parameters = object_schema(
            {},
            {
                "file_path": {"type": "string", "description": "The program; or give code."},
                "language": {"type": "string", "enum": list(self._languages)},
                "code": {"type": "string"},
                "arguments": {"type": "array", "items": {"type": "string"}},
                "stdin": {"type": "string", "description": "For a file_path: its input."},
            },
        )

    async def call(self, arguments: dict[str, Any]) -> Result:
        path, code = arguments.get("file_path"), arguments.get("code")
        if (path is None) == (code is None):
            return Result(Status.FAILED, "give either file_path, or code and language")
        words = arguments.get("arguments", [])
        if code is not None:
            name = arguments.get("language", "python")
            script = _kept_and_run(self._languages[name])
            argv, stdin = ["sh", "-c", script, "code", *words], code
            place = f"{name}: {code.strip().partition(chr(10))[0]}"
        else:
            assert isinstance(path, str)
            name = arguments.get("language") or self._language_of(path)
            if name is None:
                suffixes = [suffix for one in self._languages.values() for suffix in one.suffixes]
                told = f"{path}: its suffix is none of {', '.join(suffixes)}"
                return Result(Status.FAILED, told)
            file = path if path.startswith("/") else f"./{path}"
            argv, stdin = [*self._languages[name].command, file, *words], arguments.get("stdin", "")
            place = " ".join([path, *words])
        try:
            outcome = await self._sandbox.run(
                argv,
                limits=self._limits,
                stdin=stdin.encode("utf-8", "surrogatepass"),
                on_output=self._on_output,
            )
        except ValueError as error:  # a zero byte in an argument
            return Result(Status.FAILED, str(error))
        return command_result(outcome, self._limits, place)

    def _language_of(self, path: str) -> str | None:
        fitting = (name for name, one in self._languages.items() if path.endswith(one.suffixes))
        return next(fitting, None)


def _kept_and_run(language: Language) -> str:
    """A script that makes its input a file and runs that, with the script's arguments."""
    file = f'f="$(mktemp -d)/code{language.suffixes[0]}" && cat > "$f"'
    return f'{file} && exec {shlex.join(language.command)} "$f" "$@" < /dev/null'
