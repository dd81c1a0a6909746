"""`file_editor`: read, write, append, edit by unique match, view by lines; in the work folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from expertmesh.agent.contained import Folder, OutsideError, Parts
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.record.trace import OUTPUTS
from expertmesh.agent.tools.edit import EditError, decoded, encoded, replaced_once
from expertmesh.agent.tools.syntax import syntax_error
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema

MAX_FILE_BYTES = 4 << 20
READ_BYTES = 7 * 1024
VIEW_LINES = 200
_CHANGES = ("write", "append", "edit")
_NEEDED = {"write": ("content",), "append": ("content",), "edit": ("old_text", "new_text")}
_TEXT = {"type": "string"}
_LINE = {"type": "integer", "minimum": 1}


class FileEditor:
    """Files of one folder, and the kept outputs of the run to read."""

    name = "file_editor"
    description = (
        "Read and change text files of the work folder. action read: the whole file; view: "
        "numbered lines from start_line to end_line; write: make or replace it with content; "
        "append: add content at its end; edit: replace old_text, which must occur exactly once, "
        "by new_text."
    )
    parameters = object_schema(
        {
            "action": {"type": "string", "enum": ["read", "write", "append", "edit", "view"]},
            "file_path": {"type": "string", "minLength": 1},
        },
        {
            "content": _TEXT,
            "old_text": _TEXT,
            "new_text": _TEXT,
            "start_line": _LINE,
            "end_line": _LINE,
        },
    )
    effect = Effect.WRITES

    def __init__(
        self,
        folder: Folder,
        outputs: Path | None = None,
        before_change: Callable[[Parts], None] = lambda parts: None,
        *,
        writable: bool = True,
    ):
        """`before_change` is called with a file that is about to be changed or made."""
        self._writable = writable
        self._folder = folder
        self._outputs = Folder(outputs) if outputs is not None else None
        self._before_change = before_change

    def effect_of(self, arguments: dict[str, Any]) -> Effect:
        return Effect.WRITES if arguments["action"] in _CHANGES else Effect.READS

    async def call(self, arguments: dict[str, Any]) -> Result:
        action, path = arguments["action"], arguments["file_path"]
        missing = [name for name in _NEEDED.get(action, ()) if name not in arguments]
        if missing:
            return Result(Status.FAILED, f"{action} needs {' and '.join(missing)}")
        if action in _CHANGES and not self._writable:
            return Result(Status.REFUSED, "nothing may be changed in this run: it is read-only")
        try:
            if action == "read":
                return self._read(path)
            if action == "view":
                return self._view(path, arguments.get("start_line", 1), arguments.get("end_line"))
            return self._change(action, path, arguments)
        except (EditError, OutsideError) as error:
            return Result(Status.FAILED, str(error))
        except FileNotFoundError:
            return Result(Status.FAILED, f"{path}: there is no such file")
        except OSError as error:
            return Result(Status.FAILED, f"{path}: {error.strerror or error}")
        except ValueError as error:
            return Result(Status.FAILED, str(error))

    def _read(self, path: str) -> Result:
        text = self._text(path)
        if not text:
            return Result(Status.OK, f"{path} is empty")
        where = f"{path}, with action view and start_line"
        source = Source.of(f"{path}:1-{text.count(chr(10)) + 1}", text)
        return Result(Status.OK, clipped(text, READ_BYTES, full_text=where), (source,))

    def _view(self, path: str, start: int, end: int | None) -> Result:
        lines = self._text(path).split("\n")
        if lines[-1] == "":
            lines.pop()
        end = min(len(lines), end or start + VIEW_LINES - 1)
        if start > len(lines):
            return Result(Status.FAILED, f"{path} has {len(lines)} lines")
        if end < start:
            return Result(Status.FAILED, f"end_line must be at least start_line, {start}")
        shown, size_bytes = [], 0
        for number in range(start, end + 1):
            shown.append(f"{number:6}\t{lines[number - 1]}")
            size_bytes += len(shown[-1].encode("utf-8", "surrogatepass"))
            if size_bytes > READ_BYTES and number < end:
                end = number
                break
        more = f"\n[{len(lines) - end} more lines]" if end < len(lines) else ""
        source = Source.of(f"{path}:{start}-{end}", "\n".join(lines[start - 1 : end]))
        return Result(Status.OK, clipped("\n".join(shown), READ_BYTES) + more, (source,))

    def _change(self, action: str, path: str, arguments: dict[str, Any]) -> Result:
        if path.startswith(OUTPUTS):
            raise OutsideError(f"{path}: this can only be read")
        parts = self._folder.parts(path)
        if any(part.lower() == ".git" for part in parts):
            raise OutsideError(f"{path}: files of git itself are not changed")
        old = self._old(parts, must_exist=action == "edit")
        new, told = _changed(action, path, old, arguments)
        self._before_change(parts)
        self._folder.write(parts, new)
        error = syntax_error(path, new)
        warning = f"\nThe file is not valid now: {error}" if error else ""
        return Result(Status.OK, told + warning)

    def _old(self, parts: Parts, *, must_exist: bool) -> bytes | None:
        try:
            return self._folder.read(parts, MAX_FILE_BYTES)
        except FileNotFoundError:
            if must_exist:
                raise
            return None

    def _text(self, path: str) -> str:
        if path.startswith(OUTPUTS):
            if self._outputs is None:
                raise FileNotFoundError
            kept = self._outputs.parts(path.removeprefix(OUTPUTS))
            return decoded(self._outputs.read(kept, MAX_FILE_BYTES), path).text
        return decoded(self._folder.read(self._folder.parts(path), MAX_FILE_BYTES), path).text


def _changed(
    action: str, path: str, old: bytes | None, arguments: dict[str, Any]
) -> tuple[bytes, str]:
    """The new bytes, and what to tell. Raises EditError."""
    if action == "write":
        new = arguments["content"].encode("utf-8", "surrogatepass")
        what = "made" if old is None else "replaced"
        return new, f"{what} {path}: {_lines(arguments['content'])}"
    if action == "append":
        new = (old or b"") + arguments["content"].encode("utf-8", "surrogatepass")
        return new, f"appended {_lines(arguments['content'])} to {path}"
    assert old is not None
    before = decoded(old, path)
    edit = replaced_once(before.text, arguments["old_text"], arguments["new_text"], path)
    return encoded(edit.text, before), f"edited {path}, line {edit.line}"


def _lines(text: str) -> str:
    count = text.count("\n") + (not text.endswith("\n") and bool(text))
    return f"{count} line{'' if count == 1 else 's'}"
