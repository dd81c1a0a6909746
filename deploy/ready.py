"""Is the service in this container ready? Exit status 0 when its /readyz says so.

The address comes from the variables that the service itself reads.
"""

import os
import sys
import urllib.error
import urllib.request

# The gateway has one HTTP port for everything.
listen = os.environ.get("EXPERTMESH_OPS_LISTEN") or os.environ["EXPERTMESH_LISTEN"]
port = listen.rpartition(":")[2]
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4).close()
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"not ready: {error}")
