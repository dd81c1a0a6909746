"""When may a process take the place of a live member of the same id?

Pure. The new process waits as a *successor*: the topology does not show it, and the older one
keeps its place. The successor is told to hold what the older one holds. It takes over once it has
been dialled back, has announced those pieces, and the process at its address has proven to be the
one that joined (see `proving`). Until then nothing changes.
"""

import hmac

from router_svc.members.member import READY, Member, asked_for
from rpc.mesh.pieces import Pieces


def is_same_process(older: Member, newer: Member) -> bool:
    """Whether a new stream comes from the same process as the older member's."""
    return (
        bool(newer.process_key)
        and older.incarnation == newer.incarnation
        and hmac.compare_digest(older.process_key, newer.process_key)
    )


def trial_hold(older: Member, successor: Member) -> Pieces:
    """What a waiting pool has to hold before it may take over."""
    assert successor.offer is not None
    wanted = asked_for(successor)
    if not wanted:
        wanted = (older.ready | (older.goal or Pieces())) & successor.offer.available
    return wanted.first(successor.offer.capacity_pieces or len(wanted))


def has_announced(older: Member, successor: Member) -> bool:
    """Whether a waiting successor can be reached and holds what it was told to."""
    status = successor.status
    if not successor.reachable or status is None or status.state != READY:
        return False
    if successor.role != "pool":
        return True
    missing = (successor.hold or Pieces()) - successor.ready
    return not missing and bool(successor.ready or not older.ready)
