"""What every service needs: servers, channels, codec, TLS, metrics. No model.

grpcio reads these variables at its first import, so they are set here; values that are already
set stay. The event engine costs a third of an aio stream's round trip on Linux
(`bench/mesh/hop.py` measures it), so it is off. gRPC's own log bypasses ours and has a line for
each failed handshake, and texts of peers, so it is limited to errors.
"""

import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
