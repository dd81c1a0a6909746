"""The plumbing of every service: servers, channels, codec, TLS, metrics. No model.

What grpcio reads when it is first imported is set here, before anything imports it; set the
variables yourself to choose otherwise. Its event engine costs a third of an aio stream's round
trip on Linux (`bench/mesh/hop.py` measures it), so it is off. Its own log goes past ours, with a line
for each handshake that fails and with texts of peers, so only errors are in it.
"""

import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
