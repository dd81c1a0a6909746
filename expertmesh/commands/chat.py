"""`expertmesh chat`: chat in the terminal with any OpenAI-compatible server."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import typer

from expertmesh.clients.asked_server import API_KEY, BASE_URL, MODEL_NAME, THINKING
from expertmesh.clients.chat import ChatClient, Reply, client_key
from expertmesh.clients.router import API_KEY_FILE, RUN_DIR
from expertmesh.clients.transcript import Thinking, show_reply
from expertmesh.cluster.state import DEFAULT_URL, running_url
from expertmesh.console import (
    EXIT_CODES_HELP,
    EXIT_USAGE,
    CommandError,
    help_text,
    print_json,
    stderr,
    stdout,
)

_HELP = f"""Chat with the model: ask one question, or hold a conversation.

Without a question it reads one from a pipe; on a terminal it starts a conversation. There, /reset
forgets the conversation, /exit (or Ctrl-D) leaves, and Ctrl-C stops an answer. Answers go to
standard output; thinking and the tokens/s line go to standard error.

Examples:

  expertmesh chat

  expertmesh chat "What is 4728 + 1595?"

  echo "Sort 7, 3, 9, 1" | expertmesh chat --thinking hidden

  expertmesh chat --base-url http://127.0.0.1:9000 --system "Answer briefly."

{EXIT_CODES_HELP}
"""


COMMANDS = "/reset forgets the conversation, /exit or Ctrl-D leaves, /help shows this line"


def register(app: typer.Typer) -> None:
    app.command(help=help_text(_HELP))(chat)


def chat(
    question: str | None = typer.Argument(None, help="Ask this one question."),
    base_url: str | None = BASE_URL,
    run_dir: Path | None = RUN_DIR,
    api_key: str | None = API_KEY,
    api_key_file: Path | None = API_KEY_FILE,
    model: str | None = MODEL_NAME,
    system: str | None = typer.Option(None, envvar="EXPERTMESH_SYSTEM", help="System prompt."),
    thinking: Thinking = THINKING,
    temperature: float | None = typer.Option(
        None, envvar="EXPERTMESH_TEMPERATURE", help="0: greedy. Default: the checkpoint's."
    ),
    max_tokens: int | None = typer.Option(
        None, envvar="EXPERTMESH_MAX_TOKENS", help="Most tokens in an answer, including thinking."
    ),
    as_json: bool = typer.Option(
        False, "--json", envvar="EXPERTMESH_JSON", help="Print the answer to one question as JSON."
    ),
) -> None:
    client = ChatClient(
        base_url or running_url(run_dir) or DEFAULT_URL, client_key(api_key, api_key_file)
    )
    conversation = ChatSession(
        client,
        {
            "model": model or client.model_name(),
            **({"temperature": temperature} if temperature is not None else {}),
            **({"max_tokens": max_tokens} if max_tokens is not None else {}),
        },
        system,
    )
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if not question:
            raise CommandError("standard input is empty: nothing to ask", EXIT_USAGE)
    if as_json:
        if question is None:
            raise CommandError("--json: needs a question, as argument or from a pipe", EXIT_USAGE)
        print_json(conversation.ask_quietly(question))
    elif question is not None:
        conversation.ask(question, thinking)
    else:
        _converse(conversation, thinking)
    client.close()


class ChatSession:
    """The conversation so far, and how to ask the next question."""

    def __init__(self, client: ChatClient, settings: dict[str, Any], system: str | None):
        self._client = client
        self._settings = settings
        self._first = [{"role": "system", "content": system}] if system else []
        self._messages: list[dict[str, Any]] = list(self._first)

    def reset(self) -> None:
        self._messages = list(self._first)

    def ask(self, question: str, thinking: Thinking) -> None:
        """Stream one answer to the terminal and remember the turn."""
        reply = Reply()
        body = self._body(question)
        pieces = self._client.stream(body, reply)
        show_reply(pieces, reply, out=stdout(), notes=stderr(), thinking=thinking)
        stderr().print(reply.speed_line(), style="dim")
        self._messages = [*body["messages"], reply.as_message()]

    def ask_quietly(self, question: str) -> dict[str, Any]:
        """One answer as a dict, for --json."""
        reply = Reply()
        for _ in self._client.stream(self._body(question), reply):
            pass
        return {
            "content": reply.content,
            "reasoning_content": reply.reasoning,
            "tool_calls": reply.tool_calls,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "first_token_s": reply.first_token_s,
            "total_s": reply.total_s,
            "tokens_per_s": reply.tokens_per_s,
        }

    def _body(self, question: str) -> dict[str, Any]:
        messages = [*self._messages, {"role": "user", "content": question}]
        return {**self._settings, "messages": messages}


def _converse(conversation: ChatSession, thinking: Thinking) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (line editing and history for input())
    notes = stderr()
    notes.print(COMMANDS, style="dim")
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            notes.print()
            return
        if question == "/exit":
            return
        if question == "/help":
            notes.print(COMMANDS, style="dim")
        elif question == "/reset":
            conversation.reset()
            notes.print("conversation forgotten", style="dim")
        elif question:
            try:
                conversation.ask(question, thinking)
            except KeyboardInterrupt:
                notes.print("(stopped)", style="yellow")
            except CommandError as error:
                notes.print(f"{error}", style="red", markup=False)
