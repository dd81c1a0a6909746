"""Ask an expert pool for one layer's experts by gRPC: hidden rows in, weighted sums out.

    python examples/grpc_execute.py --pool 127.0.0.1:50052 --checkpoint-id ID --hidden-size 3072

Needs only grpcio, numpy and the stubs in protos/. The checkpoint_id is the attention service's
(GetStatus) or the pool's own (DescribePool): it shows that the caller means the same weights.
`expertmesh status` shows the addresses of the pools that `expertmesh up` started, and
`expertmesh model info` the hidden size.
"""

import argparse
import sys

import grpc
import numpy as np

from protos import expert_pb2, expert_pb2_grpc, tensor_pb2


def hello(checkpoint_id: str) -> expert_pb2.ExecuteRequest:
    """The first frame of every stream."""
    return expert_pb2.ExecuteRequest(
        hello=expert_pb2.CallerHello(
            protocol_major=1, checkpoint_id=checkpoint_id, caller_id="example"
        )
    )


def call(
    rows: np.ndarray, layer_idx: int, expert_ids: list[int], bf16: bool
) -> expert_pb2.ExecuteRequest:
    """Every row through the same experts, each with an equal weight."""
    num_rows, per_row = rows.shape[0], len(expert_ids)
    if bf16:  # the upper half of a float32, rounded towards zero: numpy has no bfloat16
        dtype, data = tensor_pb2.DTYPE_BFLOAT16, (rows.view("<u4") >> 16).astype("<u2").tobytes()
    else:
        dtype, data = tensor_pb2.DTYPE_FLOAT32, rows.astype("<f4").tobytes()
    return expert_pb2.ExecuteRequest(
        execute=expert_pb2.Execute(
            call_id=1,  # answers are matched by it; they may come out of order
            layer_idx=layer_idx,
            phase=expert_pb2.PHASE_DECODE,
            timeout_ms=5000,
            combine=expert_pb2.COMBINE_SUM,
            hidden=tensor_pb2.Tensor(dtype=dtype, shape=rows.shape, data=data),
            # CSR routing: pairs row_splits[n]..row_splits[n+1] belong to row n.
            row_splits=(np.arange(num_rows + 1, dtype="<i4") * per_row).tobytes(),
            expert_ids=np.tile(np.array(sorted(expert_ids), "<i4"), num_rows).tobytes(),
            weights=np.full(num_rows * per_row, 1 / per_row, "<f4").tobytes(),
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", default="127.0.0.1:50052", metavar="HOST:PORT")
    parser.add_argument("--checkpoint-id", default="", help="default: ask the pool for its own")
    parser.add_argument("--hidden-size", type=int, required=True, help="D of the model")
    parser.add_argument("--layer", type=int, help="default: the first that the pool holds")
    parser.add_argument("--experts", help="ids, separated by commas; default: the first held there")
    parser.add_argument("--rows", type=int, default=2)
    flags = parser.parse_args()

    with grpc.insecure_channel(flags.pool) as channel:
        stub = expert_pb2_grpc.ExpertPoolStub(channel)
        pool = stub.DescribePool(expert_pb2.DescribePoolRequest(), timeout=5).hello
        checkpoint_id = flags.checkpoint_id or pool.checkpoint_id
        held = {one.layer_idx: one.ranges[0].first for one in pool.pieces.layers}
        layer = min(held, default=0) if flags.layer is None else flags.layer
        named = flags.experts or str(held.get(layer, 0))
        experts = [int(expert_id) for expert_id in named.split(",")]
        rows = np.random.default_rng(0).standard_normal((flags.rows, flags.hidden_size), np.float32)
        bf16 = tensor_pb2.DTYPE_FLOAT32 not in pool.accepted_dtypes

        frames = [hello(checkpoint_id), call(rows, layer, experts, bf16)]
        for response in stub.Execute(iter(frames), timeout=10):
            frame = response.WhichOneof("frame")
            if frame == "hello":
                print(f"{response.hello.pool_id}: {response.hello.numerics_id}")
            elif frame == "error":  # this call failed; the stream lives on
                code = expert_pb2.ErrorCode.Name(response.error.code)
                print(f"{code}: {response.error.message}", file=sys.stderr)
                return 1
            elif frame == "result":
                result = response.result
                sums = np.frombuffer(result.rows.data, "<f4").reshape(result.rows.shape)
                print(f"sums {list(sums.shape)}, row norms {np.linalg.norm(sums, axis=1).round(4)}")
                print(f"queued {result.queue_us} us, computed {result.compute_us} us")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        sys.exit(1)
