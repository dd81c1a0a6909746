"""Who opened a stream, as far as the connection proves it?"""

from dataclasses import dataclass
from typing import Any

from router_svc.members.addresses import seen_host
from rpc.access.tls import certificate_names, member_ids


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a connection proves, apart from what its frames claim."""

    member_ids: frozenset[str] = frozenset()  # named in its certificate for the role
    has_secret: bool = False  # it holds the secret of the mesh

    def may_be(self, member_id: str) -> bool:
        """Whether the certificate allows this id: one that names members is for those only."""
        return not self.member_ids or member_id in self.member_ids

    def is_sure_to_be(self, member_id: str) -> bool:
        """Whether it has proven enough to replace a live member of this id."""
        return self.has_secret or member_id in self.member_ids


STRANGER = Identity()
"""No certificate, or one that names a role only, and no secret."""


def identity_of(context: Any, certificate_role: str, *, has_secret: bool) -> Identity:
    """The identity of an RPC's caller; `has_secret`: the server has already checked that."""
    return Identity(member_ids=member_ids(context, certificate_role), has_secret=has_secret)


def caller_text(context: Any) -> str:
    """Where a call comes from and the names in its certificate, for the audit log."""
    names = ", ".join(certificate_names(context)) or "no certificate"
    return f"from {seen_host(context.peer()) or 'here'} ({names})"
