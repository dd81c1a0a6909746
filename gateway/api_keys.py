"""Which keys may clients present, and what does a file with keys look like?"""

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

MIN_KEY_CHARS = 8
MIN_SEAL_KEY_CHARS = 32
MAX_FILE_BYTES = 1024 * 1024
PLACEHOLDERS = frozenset(
    [
        "changeme",
        "changethis",
        "changethiskey",
        "changeit",
        "replaceme",
        "replacethis",
        "replacethiskey",
        "yourkey",
        "yourkeyhere",
        "yourapikey",
        "yourapikeyhere",
        "yoursecretkey",
        "mykey",
        "myapikey",
        "mysecretkey",
        "apikey",
        "apikeyhere",
        "secretkey",
        "examplekey",
        "testkey",
        "somekey",
        "somesecret",
        "somelongsecret",
        "placeholder",
        "password",
        "passw0rd",
        "12345678",
        "123456789",
        "1234567890",
        "skyourkey",
        "skyourapikey",
        "skchangeme",
        "insertkeyhere",
        "todochangeme",
    ]
)
"""Keys found in examples, in lower case and without separators."""


def check_key(key: str, source: str) -> None:
    """Raises ValueError naming `source` unless a server may take this key."""
    if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{source}: at least {MIN_KEY_CHARS} printable ASCII characters without spaces"
        )
    plain = "".join(one for one in key.lower() if one.isalnum())
    if plain in PLACEHOLDERS or len(set(key)) <= 2:
        raise ValueError(
            f"{source}: this key is a placeholder from examples; make one, for example with "
            "`openssl rand -hex 32`"
        )


def read_keys(path: Path, source: str = "--api-key-file") -> tuple[str, ...]:
    """Read one key per line; empty lines and lines that begin with # are skipped.

    Raises ValueError naming `source`, also for a file without keys: emptying it must not open the
    gateway to everyone.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{source}: cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{source}: {path} has more than {MAX_FILE_BYTES} bytes")
    keys = []
    # Undecodable bytes become characters that no key may have: the error names the line and does
    # not repeat the key.
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            check_key(line, f"{source}: {path}, line {number}")
            keys.append(line)
    if not keys:
        raise ValueError(f"{source}: {path} holds no key")
    return tuple(keys)


def digests(keys: Sequence[str]) -> tuple[bytes, ...]:
    """SHA-256 of each key; the keys themselves are not kept."""
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def read_seal_keys(path: Path, source: str = "--reasoning-key-file") -> tuple[bytes, ...]:
    """Keys of 32 bytes, made from such a file that only its owner may read.

    Raises ValueError naming `source`.
    """
    lines = read_keys(path, source)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"{source}: others than its owner may read {path}; chmod 600 it")
    if any(len(line) < MIN_SEAL_KEY_CHARS for line in lines):
        raise ValueError(
            f"{source}: {path} must hold keys of at least {MIN_SEAL_KEY_CHARS} characters, one a "
            "line; make one with `openssl rand -hex 32`"
        )
    return digests(lines)
