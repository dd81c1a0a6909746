"""In which shape does a result come back? Agents differ; ours has one of its own."""

import json
import random
from dataclasses import dataclass
from typing import Any

from demo_model.toolboxes import definitions
from demo_model.toolboxes.toolbox import Toolbox


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """How one conversation's tools report."""

    run: str
    """agent, plain, json, streams, tail or code"""
    view: str
    """plain, or how a numbered line looks"""
    is_agent: bool

    def ran(
        self, output: str, exit_code: int, *, to_stderr: bool = False, chatter: str = ""
    ) -> str:
        """A command that ended; `chatter`: warnings that it wrote to stderr besides."""
        text = output.rstrip("\n")
        if self.run == "agent":
            if exit_code == 0 and chatter:
                parts = [
                    "exit code 0",
                    *([f"stdout:\n{text}"] if text else []),
                    f"stderr:\n{chatter}",
                ]
                return "\n".join(parts)
            if exit_code == 0:
                return text or _agent("nothing")
            if not text:
                return f"exit code {exit_code}"
            shape = "failed_stderr" if to_stderr else "failed"
            return _agent(shape).format(code=exit_code, text=text)
        if self.run == "json":
            stream = "stderr" if to_stderr else "stdout"
            return json.dumps({"exit_code": exit_code, stream: output}, ensure_ascii=False)
        if self.run == "streams":
            both = ("", text) if to_stderr else (text, "")
            return f"stdout:\n{both[0]}\nstderr:\n{both[1]}\nexit code: {exit_code}"
        if self.run == "tail":
            return f"{text}\n[exit {exit_code}]".lstrip("\n")
        if self.run == "code":
            return f"exit code {exit_code}\n{text}".rstrip("\n")
        return text or "(no output)"

    def timed_out(self, rng: random.Random) -> str:
        seconds = 30 if self.is_agent else rng.choice((10, 30, 60, 120))
        if self.run == "agent":
            return _agent("timed_out").format(
                seconds=f"{seconds}.{rng.randint(0, 2)}",
                limit=rng.choice(("wall", "CPU")),
                of=seconds,
            )
        if self.run == "json":
            return json.dumps({"exit_code": None, "error": f"timed out after {seconds} s"})
        return f"Error: timed out after {seconds} seconds"

    def viewed(self, source: str) -> str:
        """A file's text."""
        style = _agent("line") if self.view == "agent" else self.view
        if style == "plain":
            return source.rstrip("\n")
        return "\n".join(
            style.format(n=number, text=line)
            for number, line in enumerate(source.rstrip("\n").split("\n"), 1)
        )

    def edited(self, path: str, line: int) -> str:
        if self.is_agent:
            return _agent("edited").format(path=path, line=line)
        told = {
            "json": '{"ok": true}',
            "streams": f"The file {path} has been edited.",
            "code": "ok",
        }
        return told.get(self.run, f"Edited {path}.")

    def written(self, path: str, text: str, *, new: bool) -> str:
        count = text.count("\n") + (not text.endswith("\n"))
        lines = f"{count} line{'s' * (count != 1)}"
        if self.is_agent:
            return _agent("made" if new else "replaced").format(path=path, lines=lines)
        return {"json": '{"ok": true}', "code": "ok"}.get(self.run, f"Wrote {path}.")

    def appended(self, path: str, text: str) -> str:
        return _agent("appended").format(path=path, lines=f"{text.count(chr(10)) + 1} line")

    def no_match(self, path: str, where: str = "") -> str:
        if self.is_agent:
            return f"{_agent('no_match').format(path=path)}{where or _agent('look')}"
        return f"Error: the old text does not occur in {path}."

    def no_file(self, path: str) -> str:
        if self.is_agent:
            return _agent("no_file").format(path=path)
        return f"Error: {path} not found"

    def bad_syntax(self, path: str, line: int, told: str) -> str:
        """An edit after which the file cannot be parsed."""
        if self.is_agent:
            return _agent("bad_syntax").format(path=path, line=line, told=told)
        return f"Edited {path}. Warning: it does not parse: {told}"


def _agent(name: str) -> str:
    shapes: dict[str, Any] = definitions.agent()["shapes"]
    return str(shapes[name])


VIEWS = ("plain", "plain", "{n:4}\t{text}", "{n}: {text}", "{n:3} | {text}", "{n}\t{text}")


def draw(rng: random.Random, toolbox: Toolbox) -> Shapes:
    if toolbox.is_agent:
        return Shapes(run="agent", view="agent", is_agent=True)
    run = rng.choice(("plain", "json", "streams", "tail", "code", "code", "agent"))
    return Shapes(run=run, view=rng.choice(VIEWS), is_agent=False)
