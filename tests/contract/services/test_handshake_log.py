"""Failed handshakes of strangers do not fill a service's log."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT

SERVER = """
import asyncio, socket, sys
from pathlib import Path
from rpc.config import Address
from rpc.process.server import GrpcHost
from tests.support.mesh_certificates import Authority

async def main():
    tls = Authority(Path(sys.argv[1])).issue("router")
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=tls)
    await host.start([])
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        await reader.read()
        writer.close()
    await host.stop(0)
    print("refused")

asyncio.run(main())
"""


def test_failed_handshakes_are_not_logged_one_by_one(tmp_path: Path):
    environment = {name: text for name, text in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")
