"""Random operations on a store and on a dictionary that says what it must answer."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from gateway.store.response_store import Item, Kind, Status
from tests.support.gateway.stores import (
    TTL_S,
    Clock,
    ModelStore,
    Opened,
    conversation,
    outcome,
    response,
)

tenants = st.sampled_from(["", "key-1:", "key-1:\0salt"])
kinds = st.sampled_from(list(Kind))
bodies = st.sampled_from([b"{}", b'{"a":"\xe2\x82\xac"}', b'{"long":"' + b"x" * 60 + b'"}'])
item_lists = st.lists(
    st.builds(Item, id=st.sampled_from(["i1", "i2", "i3", "i4", "i5", "i6"]), body=bodies),
    max_size=3,
    unique_by=lambda item: item.id,
)
item_ids = st.lists(st.sampled_from(["i1", "i2", "i3", "i9"]), max_size=2, unique=True)
running = st.sampled_from([Status.ENDED, Status.RUNNING])


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say which store."""

    ids: Bundle[str] = Bundle("ids")

    def open(self, clock: Clock) -> Opened:
        raise NotImplementedError

    @initialize(target=ids)
    def begin(self) -> Any:
        self.clock = Clock()
        self.real, self.model = self.open(self.clock), ModelStore(self.clock)
        self.count = 0
        return multiple("resp_unknown", "", "\0", "a" * 300, "' OR 1=1 --")

    def teardown(self) -> None:
        self.real.close()

    def both(self, operation: str, *values: Any, **named: Any) -> None:
        told = outcome(lambda: self.real(getattr(self.real.store, operation)(*values, **named)))
        expected = outcome(lambda: getattr(self.model, operation)(*values, **named))
        assert told == expected, operation

    def new_id(self) -> str:
        self.count += 1
        return f"resp_{self.count}"

    @rule(target=ids, tenant=tenants, input=bodies, status=running)
    def put(self, tenant: str, input: bytes, status: Status) -> str:
        id = self.new_id()
        self.both("put", tenant, response(id, input=input, status=status))
        return id

    @rule(target=ids, tenant=tenants)
    def put_conversation(self, tenant: str) -> str:
        id = self.new_id()
        self.both("put", tenant, conversation(id))
        return id

    @rule(target=ids, tenant=tenants, parent=ids, output=bodies, status=running, answered=item_ids)
    def continue_it(
        self, tenant: str, parent: str, output: bytes, status: Status, answered: list[str]
    ) -> str:
        id = self.new_id()
        entry = response(id, parent_id=parent, output=output, status=status)
        self.both("put", tenant, entry, answered=answered)
        return id

    @rule(target=ids, tenant=tenants, of=ids, items=item_lists, status=running)
    def put_into(self, tenant: str, of: str, items: list[Item], status: Status) -> str:
        id = self.new_id()
        self.both("put", tenant, response(id, conversation_id=of, status=status), items)
        return id

    @rule(tenant=tenants, kind=kinds, id=ids)
    def get(self, tenant: str, kind: Kind, id: str) -> None:
        self.both("get", tenant, kind, id)

    @rule(tenant=tenants, id=ids)
    def chain(self, tenant: str, id: str) -> None:
        self.both("chain", tenant, id)

    @rule(tenant=tenants, id=ids, output=bodies, items=item_lists, answered=item_ids)
    def end(
        self, tenant: str, id: str, output: bytes, items: list[Item], answered: list[str]
    ) -> None:
        told = {"document": b'{"ended":1}', "output": output}
        self.both("end", tenant, id, **told, items=items, answered=answered)

    @rule(tenant=tenants, asked=item_ids | st.just(["\0", "i1"]))
    def lists_with(self, tenant: str, asked: list[str]) -> None:
        told = outcome(lambda: sorted(self.real(self.real.store.lists_with(tenant, asked))))
        assert told == outcome(lambda: sorted(self.model.lists_with(tenant, asked)))

    @rule(asked=st.lists(ids, max_size=3, unique=True))
    def renew(self, asked: list[str]) -> None:
        self.both("renew", asked)

    @rule(tenant=tenants, kind=kinds, id=ids, document=bodies)
    def replace(self, tenant: str, kind: Kind, id: str, document: bytes) -> None:
        self.both("replace", tenant, kind, id, document)

    @rule(tenant=tenants, kind=kinds, id=ids)
    def delete(self, tenant: str, kind: Kind, id: str) -> None:
        self.both("delete", tenant, kind, id)

    @rule(tenant=tenants, of=ids, items=item_lists)
    def add_items(self, tenant: str, of: str, items: list[Item]) -> None:
        self.both("add_items", tenant, of, items)

    @rule(tenant=tenants, of=ids)
    def items(self, tenant: str, of: str) -> None:
        self.both("items", tenant, of)

    @rule(tenant=tenants, of=ids, item=st.sampled_from(["i1", "i2", "i7", "\0"]))
    def delete_item(self, tenant: str, of: str, item: str) -> None:
        self.both("delete_item", tenant, of, item)

    @rule(seconds=st.sampled_from([1.0, 31.0, TTL_S / 2, TTL_S + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule()
    def sweep(self) -> None:
        self.real(self.real.store.sweep())
        self.model.sweep()

    @rule()
    def open_again(self) -> None:
        self.real.close()
        self.real = self.open(self.clock)
