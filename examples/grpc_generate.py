"""Generate tokens by gRPC, without the gateway: token ids in, token ids out.

    python examples/grpc_generate.py --attention 127.0.0.1:50051 --prompt 5,6,7 --max-tokens 16

Needs only grpcio and the stubs in protos/. A real client would turn text into ids with the
checkpoint's tokenizer, as the gateway does. `expertmesh status` shows the addresses of the services
that `expertmesh up` started. Plaintext works on loopback; if services want the mesh's secret (as
those of `expertmesh up` do), give its file with --secret-file. If the mesh has certificates, the
client needs one with role gateway: see grpc.ssl_channel_credentials.
"""

import argparse
import hashlib
import hmac
import sys
import time
from pathlib import Path

import grpc

from protos import attention_pb2, attention_pb2_grpc


def proof(secret_file: Path | None, method: str) -> tuple[tuple[str, str], ...]:
    """Metadata that proves knowledge of the secret: the time, and an HMAC of time and method."""
    if secret_file is None:
        return ()
    key = secret_file.read_bytes().splitlines()[0].strip()
    at_s = int(time.time())
    text = f"{at_s} /expertmesh.attention.v1.Attention/{method}"
    digest = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (("expertmesh-proof", f"{at_s}.{digest}"),)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attention", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--prompt", default="5,6,7", help="token ids, separated by commas")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal tokens")
    parser.add_argument("--secret-file", type=Path, help="for example RUN_DIR/secret")
    flags = parser.parse_args()

    with grpc.insecure_channel(flags.attention) as channel:
        stub = attention_pb2_grpc.AttentionStub(channel)

        # Ready means: every expert of every layer has a connected pool.
        shown = proof(flags.secret_file, "GetStatus")
        status = stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=5, metadata=shown)
        if not status.ready:
            print(f"not ready: {status.not_ready_reason}", file=sys.stderr)
            return 1

        request = attention_pb2.GenerateRequest(
            request_id="example",
            prompt_token_ids=[int(token_id) for token_id in flags.prompt.split(",")],
            sampling=attention_pb2.SamplingParams(
                max_tokens=flags.max_tokens,
                temperature=flags.temperature,
                seed=flags.seed,
                # proto3 cannot tell 0 from unset, so that "off" must be explicit.
                top_p=1.0,
                repetition_penalty=1.0,
            ),
        )
        # One or more Tokens events, each with the output index of its first token, then
        # exactly one Finished. Leaving the loop early and cancelling frees the sequence.
        shown = proof(flags.secret_file, "Generate")
        for response in stub.Generate(request, metadata=shown):
            if response.WhichOneof("event") == "tokens":
                print(*response.tokens.token_ids, flush=True)
                continue
            finished = response.finished
            reason = attention_pb2.FinishReason.Name(finished.reason)
            usage = finished.usage
            print(f"{reason}: {usage.prompt_tokens} + {usage.generated_tokens} tokens")
            if finished.error:
                print(f"{finished.error} (retryable: {finished.retryable})", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        sys.exit(1)
