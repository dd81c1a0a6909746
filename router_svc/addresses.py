"""Where is a member to be dialled, given what it says and where it called from?"""

from urllib.parse import unquote

from rpc.config import Address

ANY_HOSTS = ("", "0.0.0.0", "::")


def seen_host(peer: str) -> str:
    """The host in gRPC's peer text ("ipv4:10.0.0.7:4711"); empty when it has none."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def advertised(text: str, caller_host: str, field: str) -> Address:
    """HOST:PORT as the member gave it; a host that means "any" becomes the caller's.

    Raises ValueError naming `field`.
    """
    host, separator, port = text.strip().rpartition(":")
    if host.strip("[]") in ANY_HOSTS:
        if not separator or not caller_host:
            raise ValueError(f"{field}: expected HOST:PORT, got {text[:80]!r}")
        text = str(Address(host=caller_host, port=0)).removesuffix("0") + port
    address = Address.parse(text[:300], field)
    if address.port == 0:
        raise ValueError(f"{field}: port 0 cannot be dialled, got {text[:80]!r}")
    return address
