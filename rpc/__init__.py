"""The plumbing of every service: servers, channels, codec, TLS, metrics. No model.

grpcio's event engine costs a third of an aio stream's round trip on Linux
(`bench/hop.py` measures it), so it is switched off here, before anything
imports grpc. Set GRPC_EXPERIMENTS yourself to choose otherwise.
"""

import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
