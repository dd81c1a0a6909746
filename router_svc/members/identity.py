"""Who opened a stream, as far as its connection proves that?"""

from dataclasses import dataclass
from typing import Any

from router_svc.members.addresses import seen_host
from rpc.access.tls import certificate_names, member_ids


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a connection shows beside what its frames claim."""

    member_ids: frozenset[str] = frozenset()  # named in its certificate for the role
    has_secret: bool = False  # it holds the secret of the mesh

    def may_be(self, member_id: str) -> bool:
        """Whether nothing speaks against this id: a certificate with a name is for that name."""
        return not self.member_ids or member_id in self.member_ids

    def is_sure_to_be(self, member_id: str) -> bool:
        """Whether it may take the place of a live member of this id."""
        return self.has_secret or member_id in self.member_ids


STRANGER = Identity()
"""No certificate, or one that names a role only, and no secret."""


def identity_of(context: Any, certificate_role: str, *, has_secret: bool) -> Identity:
    """Of the caller of an RPC; `has_secret`: the server has checked that already."""
    return Identity(member_ids=member_ids(context, certificate_role), has_secret=has_secret)


def caller_text(context: Any) -> str:
    """Where a call comes from and what its certificate says, for the audit."""
    names = ", ".join(certificate_names(context)) or "no certificate"
    return f"from {seen_host(context.peer()) or 'here'} ({names})"
