"""In which shape do other agents return results? Each has one of its own.

Those of our agent come from its own code: agent_results.py.
"""

import json
import random
from dataclasses import dataclass

from demo_model.toolboxes.agent_results import exited
from expertmesh.agent.tools.command_result import USUAL, command_result


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """How one conversation's tools report."""

    run: str
    """agent, plain, json, streams, tail or code"""
    view: str
    """plain, or how a numbered line looks"""

    def ran(self, output: str, exit_code: int, *, to_stderr: bool = False) -> str:
        """A command that ended."""
        text = output.rstrip("\n")
        both = ("", text) if to_stderr else (text, "")
        if self.run == "agent":
            return command_result(exited(*both, exit_code), USUAL, "").text
        if self.run == "json":
            stream = "stderr" if to_stderr else "stdout"
            return json.dumps({"exit_code": exit_code, stream: output}, ensure_ascii=False)
        if self.run == "streams":
            return f"stdout:\n{both[0]}\nstderr:\n{both[1]}\nexit code: {exit_code}"
        if self.run == "tail":
            return f"{text}\n[exit {exit_code}]".lstrip("\n")
        if self.run == "code":
            return f"exit code {exit_code}\n{text}".rstrip("\n")
        return text or "(no output)"

    def timed_out(self, rng: random.Random) -> str:
        seconds = rng.choice((10, 30, 60, 120))
        if self.run == "json":
            return json.dumps({"exit_code": None, "error": f"timed out after {seconds} s"})
        return f"Error: timed out after {seconds} seconds"

    def viewed(self, source: str) -> str:
        """A file's text."""
        if self.view == "plain":
            return source.rstrip("\n")
        return "\n".join(
            self.view.format(n=number, text=line)
            for number, line in enumerate(source.rstrip("\n").split("\n"), 1)
        )

    def edited(self, path: str, fault: str | None) -> str:
        """`fault`: why the file cannot be parsed now."""
        if fault:
            return f"Edited {path}. Warning: it does not parse: {fault}"
        told = {
            "json": '{"ok": true}',
            "streams": f"The file {path} has been edited.",
            "code": "ok",
        }
        return told.get(self.run, f"Edited {path}.")

    def written(self, path: str) -> str:
        return {"json": '{"ok": true}', "code": "ok"}.get(self.run, f"Wrote {path}.")

    def no_match(self, path: str) -> str:
        return f"Error: the old text does not occur in {path}."

    def no_file(self, path: str) -> str:
        return f"Error: {path} not found"


VIEWS = ("plain", "plain", "{n:4}\t{text}", "{n}: {text}", "{n:3} | {text}", "{n}\t{text}")


def draw(rng: random.Random) -> Shapes:
    run = rng.choice(("plain", "json", "streams", "tail", "code", "code", "agent"))
    return Shapes(run=run, view=rng.choice(VIEWS))
