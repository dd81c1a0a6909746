"""Which clients can be connected?"""

from expertmesh.connect import aider, claude_code, cline, codex, opencode, pi
from expertmesh.connect.client import Client

CLIENTS: dict[str, Client] = {
    one.CLIENT.name: one.CLIENT for one in (claude_code, codex, opencode, cline, aider, pi)
}
"""By the names that the command line has for them."""
