"""Which names does one toy program get? Some identifiers are held out, by a hash."""

import random
import zlib

from demo_model.programs.templates import HELD_OUT_ONE_IN, POOLS, Template

MODULES = (
    "helpers", "calc", "shop", "wording", "listing", "util", "figures", "texts", "report", "basket",
    "core", "orders", "grades", "parsing", "counting", "tools", "lib", "summary", "records", "sums",
    "stock", "metrics", "measure", "common", "app", "mathx", "strings2", "tables",
    "prices", "score",
)  # fmt: skip


def is_held_out(name: str) -> bool:
    return zlib.crc32(f"identifier|{name}".encode()) % HELD_OUT_ONE_IN == 0


def pick(rng: random.Random, pool: tuple[str, ...], *, held_out: bool) -> str:
    """A name of the pool from one side of the line; from the trained side if there is no other."""
    side = [name for name in pool if is_held_out(name) == held_out]
    return rng.choice(side or [name for name in pool if not is_held_out(name)] or pool)


def names_for(
    rng: random.Random, template: Template, *, held_out: bool, taken: set[str]
) -> dict[str, str]:
    """A name for every slot, all different; the function's is not in `taken`.

    Raises ValueError if all names that the function may have are taken.
    """
    free = tuple(name for name in template.functions if name not in taken)
    if not free:
        raise ValueError(f"{template.name}: all its names are taken")
    names = {"f": pick(rng, free, held_out=held_out)}
    for slot in template.slots:
        pool = tuple(name for name in POOLS[slot] if name not in names.values())
        # about half of the variables, so that each trained one is also seen beside a new one
        names[slot] = pick(rng, pool, held_out=held_out and rng.random() < 0.5)
    return names
