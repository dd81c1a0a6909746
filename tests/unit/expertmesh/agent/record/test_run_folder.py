"""Where runs are kept, and which are found again."""

from pathlib import Path

import pytest

from expertmesh.agent.record import run_folder
from expertmesh.agent.record.masks import Masks
from expertmesh.agent.record.past import read_earlier
from expertmesh.agent.record.run_folder import RunFolder, all_runs, find_run, new_run
from expertmesh.agent.record.trace import Trace, append_event, read_trace


def made(root: Path, name: str) -> RunFolder:
    run = RunFolder(root / name)
    for path in (run.path, run.outputs, run.checkpoint):
        path.mkdir(parents=True)
    Trace(run, Masks()).close()
    return run


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    for name in ("20260101-000000-aa", "20260101-000001-ab", "20260102-000000-aa"):
        made(tmp_path, name)
    assert find_run(tmp_path).id == "20260102-000000-aa"
    assert find_run(tmp_path, "20260101-000001").id == "20260101-000001-ab"
    with pytest.raises(ValueError, match="2 runs of this id; the latest are 20260101-000000-aa, "):
        find_run(tmp_path, "20260101")
    for unknown in ("2027", "", "../x", "20260101-000000-aa/../x"):
        with pytest.raises(ValueError, match="no run of this id"):
            find_run(tmp_path, unknown)
    with pytest.raises(ValueError, match="no run is kept in"):
        find_run(tmp_path / "none")


def test_old_runs_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "KEPT_RUNS", 4)
    names = [f"20260101-00000{number}-aa" for number in range(6)]
    for name in names:
        made(tmp_path, name)
    new_run(tmp_path)
    assert [one.id for one in all_runs(tmp_path)] == names[-3:]
    monkeypatch.setattr(run_folder, "KEPT_BYTES", 100)
    (RunFolder(tmp_path / names[-1]).checkpoint / "large").write_bytes(b"x" * 99)
    (RunFolder(tmp_path / names[-2]).checkpoint / "small").write_bytes(b"x" * 2)
    new_run(tmp_path)
    assert [one.id for one in all_runs(tmp_path)] == names[-1:]


def test_a_new_run_is_its_owners_alone_even_in_an_open_folder(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir(mode=0o755)
    run = new_run(root)
    for path in (root, run.path, run.outputs, run.checkpoint):
        assert path.stat().st_mode & 0o777 == 0o700


def test_any_text_can_be_traced_and_a_broken_last_line_is_left_out(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    run.trace.unlink()
    trace = Trace(run, Masks())
    trace.write("user", message={"role": "user", "content": "\udcff\u2028\n你"})
    trace.close()
    append_event(run.trace, "undone", restored=[])
    with run.trace.open("a") as file:
        file.write('{"event": "to')
    events = read_trace(run.trace)
    assert [one["event"] for one in events] == ["user", "undone"]
    assert events[0]["message"]["content"] == "\udcff\u2028\n你"


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"no": 1}'])
def test_what_is_no_trace_is_named(tmp_path: Path, line: str) -> None:
    run = made(tmp_path, "a")
    run.trace.write_text(f'{line}\n{{"event": "end"}}\n')
    with pytest.raises(ValueError, match=r"trace\.jsonl, line 1: not "):
        read_trace(run.trace)


def test_a_call_whose_run_ended_before_its_result_gets_one(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    run.trace.unlink()
    trace = Trace(run, Masks())
    trace.write("start", task="do it", folder="/x")
    calls = [{"id": "c1", "function": {}}, {"id": "c2", "function": {}}]
    trace.write("answer", message={"role": "assistant", "content": "", "tool_calls": calls})
    done = {"role": "tool", "tool_call_id": "c1", "content": "a long result"}
    trace.write("tool", message=done, line="[left out]", sources=[])
    trace.close()
    earlier = read_earlier(run)
    assert earlier.task == "do it"
    assert earlier.notes == {1: "[left out]"}
    assert [one.get("tool_call_id") for one in earlier.messages] == [None, "c1", "c2"]
    assert earlier.messages[2]["content"] == "Not made: the run ended before."


def test_what_was_left_out_stays_left_out(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    run.trace.unlink()
    trace = Trace(run, Masks())
    trace.write("start", task="do it", folder="/x")
    trace.write("tool", message={"role": "tool", "content": "long"}, line="[left out]")
    trace.write("compact", replaced=[[0, "[left out]"]])
    trace.close()
    assert read_earlier(run).messages == [{"role": "tool", "content": "[left out]"}]
    assert read_earlier(run).notes == {}
