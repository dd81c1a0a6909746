"""Whatever is done to a SQLite store, in any order, it answers as a dictionary would."""

import tempfile
from pathlib import Path

from hypothesis import Phase

from tests.support.examples import examples
from tests.support.gateway.store_machine import StoreMachine
from tests.support.gateway.stores import CHAIN, IN_MEMORY, Clock, Opened, open_sqlite


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)

    def open(self, clock: Clock) -> Opened:
        return open_sqlite(Path(self.folder.name) / "r.sqlite", clock, chain=CHAIN)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestSqliteAnswersAsADictionary = SqliteMachine.TestCase
TestSqliteAnswersAsADictionary.settings = examples(
    60,
    few=10,
    stateful_step_count=40,
    phases=(Phase.reuse, Phase.generate),  # shrinking takes minutes: each step is a file's
)
