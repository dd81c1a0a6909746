"""How does an error name a field that a client has within another one?"""

import contextlib
from collections.abc import Iterator, Mapping

from gateway.errors import RequestError


@contextlib.contextmanager
def fields_within(outer: str, renamed: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors about a field name it as `outer.field`; `renamed` has the client's names for some."""
    try:
        yield
    except RequestError as error:
        if error.field is None:
            raise
        field = f"{outer}.{(renamed or {}).get(error.field, error.field)}"
        what = error.message.removeprefix(f"{error.field}: ")
        raise RequestError(
            error.kind, f"{field}: {what}", field=field, reason=error.reason
        ) from None
