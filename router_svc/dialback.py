"""Can the address a member advertises be reached from here?

A member behind NAT, a firewall or a wrong --advertise would look healthy (it
calls us) while nobody could call it; so the router opens a TCP connection first.
"""

import asyncio
import os
import socket

from rpc.config import Address

DIAL_TIMEOUT_S = 2.0


async def dial(address: Address, timeout_s: float = DIAL_TIMEOUT_S) -> str:
    """Open and close a TCP connection; empty when it worked, else the reason it did not."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"cannot reach {address}: no answer within {timeout_s:g} s"
    except socket.gaierror as error:
        return f"cannot reach {address}: {error.strerror}"
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        return f"cannot reach {address}: {os.strerror(number) if number else error}"
    writer.close()
    return ""
