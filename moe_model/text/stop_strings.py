"""Where does generated text hit a stop string, however the text is cut?"""

from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Finds the stop string that is complete first, in time linear in the text.

    Of several that end at the same character the longest counts. Text is given out as soon as it
    cannot be part of a match: what is held back is always the longest suffix that begins some stop
    string (the Aho-Corasick automaton).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises ValueError for an empty stop string."""
        if any(not stop for stop in stops):
            raise ValueError("stop: strings must not be empty")
        self._children: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._stop: list[str | None] = [None]
        for stop in stops:
            self._add(stop)
        self._fallback = self._link()
        self._node = 0
        self._held = ""
        self._matched: str | None = None

    def feed(self, text: str) -> tuple[str, str | None]:
        """Take more text; give what is safe to show, and the stop string once one is complete.

        After a match nothing more is shown; later calls give ("", the same stop string).
        """
        if self._matched is not None:
            return "", self._matched
        for index, character in enumerate(text):
            self._node = self._step(self._node, character)
            stop = self._stop[self._node]
            if stop is not None:
                seen = self._held + text[: index + 1]
                self._held, self._matched = "", stop
                return seen[: len(seen) - len(stop)], stop
        seen = self._held + text
        num_safe = len(seen) - self._depth[self._node]
        self._held = seen[num_safe:]
        return seen[:num_safe], None

    def flush(self) -> str:
        """Text still held back when generation ended; "" after a match."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _add(self, stop: str) -> None:
        node = 0
        for character in stop:
            if character not in self._children[node]:
                self._children[node][character] = len(self._children)
                self._children.append({})
                self._depth.append(self._depth[node] + 1)
                self._stop.append(None)
            node = self._children[node][character]
        self._stop[node] = stop

    def _link(self) -> list[int]:
        """Longest proper suffix of each node that is a node; nodes inherit its stop string."""
        fallback = [0] * len(self._children)
        self._fallback = fallback
        pending = deque(self._children[0].values())
        while pending:
            node = pending.popleft()
            for character, child in self._children[node].items():
                fallback[child] = self._step(fallback[node], character)
                if self._stop[child] is None:
                    self._stop[child] = self._stop[fallback[child]]
                pending.append(child)
        return fallback

    def _step(self, node: int, character: str) -> int:
        while node and character not in self._children[node]:
            node = self._fallback[node]
        return self._children[node].get(character, 0)
