"""Files are replaced as a whole, copies are kept, and all that was written can be taken out."""

import json
import stat
from pathlib import Path

import pytest

from expertmesh.connect import disk
from expertmesh.connect.client import ConfigFile, Setup
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.formats.yaml_text import YamlText
from expertmesh.connect.mask import diff, masked
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.record import Record
from expertmesh.connect.write import CannotMergeError, Planned, carry_out, plan, plan_removal
from expertmesh.console import CommandError


class Desk:
    """A home with one client, whose files are `a.json` and, in folders to be made, `b.yml`."""

    def __init__(self, folder: Path):
        self.home, self.state = folder / "home", folder / "state"
        self.home.mkdir()
        self.json, self.yaml = self.home / "a.json", self.home / "new" / "deep" / "b.yml"

    def setup(self, **values: object) -> Setup:
        both = {("env", key): value for key, value in values.items()}
        return Setup(
            files=(
                ConfigFile(path=self.yaml, kind=YamlText(), wanted=Wanted({("model",): "m"})),
                ConfigFile(path=self.json, kind=JsonText(), wanted=Wanted(both)),
            ),
            command="client",
        )

    def write(self, *, private: bool = False, scope: str = "", **values: object) -> list[Planned]:
        record = Record(self.state)
        setup = self.setup(**(values or {"A": "1"}))
        planned = plan(setup, "client", self.home / scope, record)
        self.copies = carry_out(planned, record, private=private)
        return planned

    def remove(self, scope: str = "") -> list[Planned]:
        record = Record(self.state)
        planned = plan_removal("client", self.home / scope, record)
        self.copies = carry_out(planned, record, private=False)
        return planned


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_comes_and_goes(desk: Desk) -> None:
    text = '{"theme" : "dark"}\n\n'
    desk.json.write_text(text)
    planned = desk.write()
    assert [one.changes for one in planned] == [True, True]
    assert json.loads(desk.json.read_text()) == {"theme": "dark", "env": {"A": "1"}}
    assert desk.copies[desk.json].read_text() == text
    assert [one.changes for one in desk.write()] == [False, False]
    assert desk.copies == {}
    desk.remove()
    assert desk.json.read_text() == text, "byte for byte"
    assert [path.name for path in desk.home.iterdir()] == ["a.json"]
    assert Record(desk.state).files == {}
    assert desk.remove() == []


def test_changes_of_others_survive_the_removal(desk: Desk) -> None:
    desk.json.write_text('{"env": {"A": "0"}}')
    desk.write()
    desk.json.write_text(desk.json.read_text().replace("}}", ', "B": "2"}, "x": 1}'))
    desk.write(A="1", C="3")
    desk.yaml.write_text("# mine\n" + desk.yaml.read_text())
    desk.remove()
    assert json.loads(desk.json.read_text()) == {"env": {"A": "0", "B": "2"}, "x": 1}
    assert desk.yaml.read_text() == "# mine\n"


def test_several_times_and_the_first_text_is_what_comes_back(desk: Desk) -> None:
    desk.json.write_text('{"env": {"A": "0"}}')
    desk.write(A="1")
    desk.write(B="2")
    assert json.loads(desk.json.read_text()) == {"env": {"A": "0", "B": "2"}}
    desk.write(A="3")
    desk.remove()
    assert desk.json.read_text() == '{"env": {"A": "0"}}'


def test_a_lost_copy_costs_the_looks_and_nothing_else(desk: Desk) -> None:
    desk.json.write_text('{"env": {"A": "0"}}')
    desk.write()
    for copy in (desk.state / "backups").iterdir():
        copy.unlink()
    desk.remove()
    assert json.loads(desk.json.read_text()) == {"env": {"A": "0"}}


def test_a_file_that_had_it_all_already_stays(desk: Desk) -> None:
    desk.json.write_text('{"env": {"A": "1"}}')
    desk.write()
    desk.remove()
    assert desk.json.read_text() == '{"env": {"A": "1"}}'


def test_a_file_that_two_need_goes_with_the_last(desk: Desk) -> None:
    (desk.home / "project").mkdir()
    desk.write()
    desk.write(scope="project")
    desk.remove()
    assert desk.json.exists()
    desk.remove(scope="project")
    assert not desk.json.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"{", "cannot be read"), (b'{"a": "\xff"}', "UTF-8"), (b'{"env": 1}', "no object")],
)
def test_nothing_is_written_where_one_file_cannot_be_merged(
    desk: Desk, content: bytes, told: str
) -> None:
    desk.json.write_bytes(content)
    with pytest.raises(CannotMergeError, match=f"a.json cannot be merged safely: .*{told}"):
        desk.write()
    assert desk.json.read_bytes() == content
    assert not desk.yaml.exists()
    assert not desk.state.exists()


def test_a_folder_in_its_place_is_left(desk: Desk) -> None:
    desk.json.mkdir()
    with pytest.raises(CannotMergeError, match="it is no file"):
        desk.write()


def test_rights_stay_but_a_key_is_for_its_owner(desk: Desk) -> None:
    desk.json.write_text("{}")
    desk.json.chmod(0o664)
    desk.write()
    assert mode(desk.json) == 0o664
    desk.write(private=True, A="2")
    assert (mode(desk.json), mode(desk.yaml)) == (0o600, 0o600)
    assert {mode(path) for path in desk.state.rglob("*") if path.is_file()} == {0o600}
    assert mode(desk.state) == 0o700


def test_a_link_stays_one(desk: Desk, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    desk.json.symlink_to(real)
    desk.write()
    assert desk.json.is_symlink()
    assert json.loads(real.read_text()) == {"env": {"A": "1"}}
    desk.remove()
    assert (desk.json.is_symlink(), real.read_text()) == (True, "{}")


def test_line_ends_stay(desk: Desk) -> None:
    desk.json.write_bytes(b'{\r\n  "a": 1\r\n}\r\n')
    desk.write()
    assert desk.json.read_bytes().count(b"\n") == desk.json.read_bytes().count(b"\r\n") > 3


def test_a_file_that_changes_meanwhile_is_not_overwritten(desk: Desk) -> None:
    desk.json.write_text("{}")
    record = Record(desk.state)
    planned = plan(desk.setup(A="1"), "client", desk.home, record)
    desk.json.write_text('{"new": 1}')
    with pytest.raises(OSError, match="changed by somebody else"):
        carry_out(planned, record, private=False)
    assert desk.json.read_text() == '{"new": 1}'
    assert list(desk.home.glob(".*.new")) == []
    assert desk.yaml.exists()
    desk.remove()
    assert not desk.yaml.exists(), "what was written before that can be taken out"


def test_a_record_that_is_none_is_told(desk: Desk) -> None:
    desk.state.mkdir()
    (desk.state / "written.json").write_text('{"x": 1}')
    with pytest.raises(CommandError, match="not a record"):
        Record(desk.state)


def test_copies_of_one_second_do_not_replace_each_other(tmp_path: Path) -> None:
    copies = {disk.keep_copy(tmp_path, Path("a.json"), str(number)) for number in range(3)}
    assert sorted(copy.read_text() for copy in copies) == ["0", "1", "2"]


def test_keys_of_others_are_not_shown() -> None:
    text = """\
    "apiKey": "sk-live", "ANTHROPIC_AUTH_TOKEN": "abc def", "max_tokens": 5, "key": "none",
    experimental_bearer_token = "t\\"x", env_key = "EXPERTMESH_API_KEY"
openai-api-key: hidden # note
- anthropic=sk-ant-0123456789abcdef
    "baseURL": "https://user:pass@host/v1", "apiKey": "{env:MINE}", "token": "$MINE"
"""
    assert (
        masked(text)
        == """\
    "apiKey": "***", "ANTHROPIC_AUTH_TOKEN": "***", "max_tokens": 5, "key": "none",
    experimental_bearer_token = "***", env_key = "EXPERTMESH_API_KEY"
openai-api-key: *** # note
- anthropic=***
    "baseURL": "https://***@host/v1", "apiKey": "{env:MINE}", "token": "$MINE"
"""
    )
    assert "Zx9" not in masked('{"url": "http://h?k=Zx9"}', "Zx9")


def test_a_difference_is_never_empty() -> None:
    assert diff("f", "a", "a") == ""
    assert diff("f", '"apiKey": "one"', '"apiKey": "two"') == "f: only keys change\n"
    shown = diff("f", None, "model: m\n")
    assert shown == "--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+model: m\n"


def test_nested_mappings_are_places() -> None:
    assert values_of({"a": {"b": 1, "c": {}}, "d": [{}]}) == {("a", "b"): 1, ("d",): [{}]}
