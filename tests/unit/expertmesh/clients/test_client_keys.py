"""Which key do the commands present, and when do they warn of one on the command line?"""

from pathlib import Path

import pytest

from expertmesh import cli
from expertmesh.clients.chat import client_key
from expertmesh.console import CommandError

FIRST, SECOND = "the-first-good-key", "the-second-good-key"


def test_the_first_key_of_a_file_counts_unless_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{FIRST}\n{SECOND}\n")
    assert client_key(None, file) == FIRST
    assert client_key(SECOND, file) == SECOND
    file.write_text("")
    with pytest.raises(CommandError, match="holds no key"):
        client_key(None, file)


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["chat", "--api-key", FIRST, "hello"], True),
        (["up", f"--api-key={FIRST}"], True),
        (["chat", "--api-key-file", "keys", "hello"], False),
        (["serve", "gateway", "--api-key", FIRST], False),  # the service says it itself
    ],
)
def test_a_key_on_the_command_line_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    warned: bool,
) -> None:
    monkeypatch.setattr("sys.argv", ["expertmesh", *words])
    monkeypatch.setattr(cli, "app", lambda **_: None)
    cli.main()
    told = capsys.readouterr().err
    assert ("every user of this machine can read --api-key" in told) == warned
    assert FIRST not in told
