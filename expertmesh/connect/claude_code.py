"""How is Claude Code configured? By the variables that its settings.json sets for it."""

from expertmesh.connect.client import Client, ConfigFile, Places, Setup
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.merge import Wanted, values_of
from expertmesh.connect.mesh import NO_KEY, Mesh

FIRST_REQUEST = 32_000
"""Tokens of its first request, most of them for its tools."""


def setup(mesh: Mesh, places: Places) -> Setup:
    values = values_of({"env": _variables(mesh)})
    command, environment = "claude", {}
    if places.project:
        path = places.project / ".claude" / "settings.local.json"
    else:
        path = places.named("CLAUDE_CONFIG_DIR", ".claude") / "settings.json"
    if mesh.key is None:
        values["env", "ANTHROPIC_AUTH_TOKEN"] = NO_KEY
    elif mesh.key.secret is not None:
        values["env", "ANTHROPIC_AUTH_TOKEN"] = mesh.key.secret
    else:
        values["env", "ANTHROPIC_AUTH_TOKEN"] = None  # it would win
        environment[mesh.key.variable] = "the key"
        if places.project:  # a project's helper needs a question to be answered first
            command = f'ANTHROPIC_AUTH_TOKEN="${mesh.key.variable}" claude'
        else:
            values["apiKeyHelper",] = f"printenv {mesh.key.variable}"
    return Setup(
        files=(ConfigFile(path=path, kind=JsonText(), wanted=Wanted(values)),),
        command=command,
        environment=environment,
        notes=_notes(mesh),
    )


def _variables(mesh: Mesh) -> dict[str, str]:
    models = ("MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL")
    return {
        "ANTHROPIC_BASE_URL": mesh.root,
        "ANTHROPIC_API_KEY": "",  # so that a key of Anthropic's own service stays at home
        # The last of them is the small and fast model; its older name wins where it is set.
        **{f"ANTHROPIC_{name}": mesh.model for name in (*models, "SMALL_FAST_MODEL")},
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(mesh.context),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(mesh.output),
        "API_TIMEOUT_MS": str(mesh.timeout_ms),
    }


def _notes(mesh: Mesh) -> tuple[str, ...]:
    if mesh.context >= 2 * FIRST_REQUEST:
        return ()
    return (
        f"Its first request has about {FIRST_REQUEST} tokens, and this model's context is "
        f'{mesh.context}: start it with fewer tools, as in claude --tools "Bash,Read,Edit".',
    )


CLIENT = Client(
    name="claude-code",
    title="Claude Code",
    tried="2.1.197",
    api="Messages",
    program="claude",
    takes_folders=True,
    setup=setup,
)
