"""How many processes and threads run on behalf of a user?"""

import os
from pathlib import Path


def tasks_of(uid: int) -> int:
    """How many processes and threads a user has."""
    total = 0
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if place.stat().st_uid == uid:
                    total += len(os.listdir(place / "task"))
            except OSError:
                continue  # ended meanwhile
    return total
