"""What does every tool need that runs commands?"""

from collections.abc import Callable

from expertmesh.agent.sandbox.policy import Limits, Sandbox
from expertmesh.agent.tools.command_result import USUAL


class InSandbox:
    """`limits` are of one command; `on_output` sees what it prints, as it comes."""

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits = USUAL,
        *,
        on_output: Callable[[str], None] | None = None,
    ):
        self._sandbox = sandbox
        self._limits = limits
        self._on_output = on_output
