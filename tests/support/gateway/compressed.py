"""How does a client compress a body?"""

import gzip
from collections.abc import Callable, Mapping

from gateway.http import compressed

COMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    **({b"zstd": compressed.zstd.compress} if compressed.zstd is not None else {}),
}
"""Those that this environment has, by their Content-Encoding."""
