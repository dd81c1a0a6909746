"""What is known of a client: where its files are, and what goes into them for a mesh?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from expertmesh.connect.formats.format import Format
from expertmesh.connect.merge import Wanted
from expertmesh.connect.mesh import Mesh


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a client looks for its configuration."""

    home: Path
    """The user's home folder."""
    project: Path | None = None
    """A project's folder, if the configuration is to be its alone."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that may name other folders."""

    def named(self, variable: str, usual: str) -> Path:
        """The folder that a variable names, else the usual one below the home."""
        named = self.environ.get(variable, "")
        return Path(named) if named else self.home / usual


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """One file of a client, and what of it is ours."""

    path: Path
    kind: Format
    wanted: Wanted


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that connects a client."""

    files: tuple[ConfigFile, ...]
    command: str
    """How the client is started then."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that have to be set: name -> what they hold, in words."""
    notes: tuple[str, ...] = ()
    """What else people should know; a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """A program that talks to the mesh."""

    name: str
    title: str
    tried: str
    """The version that was run with this configuration."""
    api: str
    """Which of the gateway's APIs it speaks."""
    program: str
    """The command that starts it."""
    takes_folders: bool
    """Whether a project's folder can have a configuration of its own."""
    setup: Callable[[Mesh, Places], Setup]

    @property
    def line(self) -> str:
        return f"{self.title} {self.tried}, over {self.api}"
