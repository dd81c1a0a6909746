"""What has every assistant of a Python program? A model, opened for each question."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from expertmesh.agent.facade import ChatsLikeLLM
from expertmesh.agent.finished import finished
from expertmesh.assistants.asking.model import TextModel, open_model
from expertmesh.assistants.watch import Watching

Result = TypeVar("Result")


class Assistant:
    """All methods raise ChatError if the model cannot be asked, and UselessAnswerError if its
    answers are of no use.
    """

    def __init__(
        self,
        model: str | ChatsLikeLLM,
        *,
        api_key: str | None = None,
        model_name: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        watching: Watching | None = None,
    ):
        """`model`: an `LLM`, or the URL of a server with OpenAI's API, whose key and model name
        `api_key` and `model_name` are. `sampling`: temperature, max_tokens and the like.
        """
        self._model = model
        self._api_key = api_key
        self._model_name = model_name
        self._sampling = sampling
        self._watching = watching or Watching()

    def _with_model(self, work: Callable[[TextModel], Awaitable[Result]]) -> Result:
        async def run() -> Result:
            opened = open_model(
                self._model,
                api_key=self._api_key,
                name=self._model_name,
                sampling=self._sampling,
                on_wait=self._watching.waits,
            )
            async with opened as model:
                return await work(model)

        return finished(run())
