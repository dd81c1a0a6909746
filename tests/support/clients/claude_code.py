"""How is Claude Code asked a question?"""

from pathlib import Path

from tests.support.clients import environments, programs
from tests.support.clients.sdks import Place


def ask(place: Place, home: Path, *words: str, question: str = "") -> programs.Finished:
    """One question, among the words or on standard input, answered in the terminal."""
    claude = environments.node("@anthropic-ai/claude-code", "2.1.197", "claude")
    variables = {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_AUTH_TOKEN": place.key,
        "ANTHROPIC_MODEL": place.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return programs.run([str(claude), "-p", *words], home, variables, question=question)
