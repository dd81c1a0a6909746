"""Which services are down, and when is each started again?

Only bookkeeping: the clock is passed in, and nothing is started here. The pause before a restart
doubles while a service keeps dying soon after its start, so that a broken one costs the others
little.
"""

from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LONG_LIFE_S = 60.0
"""A service that ran for longer than this is in no crash loop: its pause is FIRST_PAUSE_S again."""


@dataclass(slots=True)
class _Record:
    ending: str
    deaths: int = 0
    pause_s: float = 0.0
    due_s: float | None = None  # None: it has been started
    started_s: float | None = None  # the last time it was started again
    is_away: bool = True


class Restarts:
    """The deaths of a cluster's services, by name."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def died(self, name: str, ending: str, now_s: float) -> float:
        """Note a death; returns the seconds until the service is due to be started again."""
        record = self._records.setdefault(name, _Record(ending))
        lived_long = record.started_s is None or now_s - record.started_s > LONG_LIFE_S
        record.pause_s = FIRST_PAUSE_S if lived_long else min(LONGEST_PAUSE_S, 2 * record.pause_s)
        record.ending, record.is_away = ending, True
        record.deaths += 1
        record.due_s = now_s + record.pause_s
        return record.pause_s

    def due(self, now_s: float) -> list[str]:
        """The services to start now; call `started` for each."""
        return [
            name
            for name, record in self._records.items()
            if record.due_s is not None and record.due_s <= now_s
        ]

    def started(self, name: str, now_s: float) -> None:
        self._records[name].due_s = None
        self._records[name].started_s = now_s

    def back(self, name: str) -> None:
        """It is ready again."""
        self._records[name].is_away = False

    def waits(self, name: str) -> bool:
        """Whether it is dead and not yet started again."""
        record = self._records.get(name)
        return record is not None and record.due_s is not None

    def starting(self) -> list[str]:
        """The services that were started again and are not ready yet."""
        return [
            name
            for name, record in self._records.items()
            if record.is_away and record.due_s is None
        ]

    @property
    def any_away(self) -> bool:
        return any(record.is_away for record in self._records.values())

    def facts(self, name: str, now_s: float, unix_s: float) -> dict[str, object]:
        """What the state file says of it; `next_start_at` is Unix time, None if nothing is due."""
        record = self._records.get(name)
        if record is None:
            return {"deaths": 0, "last_death": None, "away": False, "next_start_at": None}
        due = None if record.due_s is None else unix_s + record.due_s - now_s
        return {
            "deaths": record.deaths,
            "last_death": record.ending,
            "away": record.is_away,
            "next_start_at": due,
        }
