"""How does a client compress a body?"""

import gzip
from collections.abc import Callable, Mapping

from gateway.http import compressed

COMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"zstd": compressed.zstd.compress,
}
"""By their Content-Encoding."""
