from protos import pieces_pb2 as _pieces_pb2
from protos import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_DECODE: _ClassVar[Phase]
    PHASE_PREFILL: _ClassVar[Phase]

class Combine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMBINE_UNSPECIFIED: _ClassVar[Combine]
    COMBINE_SUM: _ClassVar[Combine]
    COMBINE_ROWS: _ClassVar[Combine]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_ARGUMENT: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_HOLDING: _ClassVar[ErrorCode]
    ERROR_CODE_DEADLINE_EXCEEDED: _ClassVar[ErrorCode]
    ERROR_CODE_RESOURCE_EXHAUSTED: _ClassVar[ErrorCode]
    ERROR_CODE_CANCELLED: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]
    ERROR_CODE_DRAINING: _ClassVar[ErrorCode]
    ERROR_CODE_CORRUPT: _ClassVar[ErrorCode]
PHASE_UNSPECIFIED: Phase
PHASE_DECODE: Phase
PHASE_PREFILL: Phase
COMBINE_UNSPECIFIED: Combine
COMBINE_SUM: Combine
COMBINE_ROWS: Combine
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_INVALID_ARGUMENT: ErrorCode
ERROR_CODE_NOT_HOLDING: ErrorCode
ERROR_CODE_DEADLINE_EXCEEDED: ErrorCode
ERROR_CODE_RESOURCE_EXHAUSTED: ErrorCode
ERROR_CODE_CANCELLED: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode
ERROR_CODE_DRAINING: ErrorCode
ERROR_CODE_CORRUPT: ErrorCode

class ExecuteRequest(_message.Message):
    __slots__ = ("hello", "execute", "cancel", "ping")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    hello: CallerHello
    execute: Execute
    cancel: Cancel
    ping: Ping
    def __init__(self, hello: _Optional[_Union[CallerHello, _Mapping]] = ..., execute: _Optional[_Union[Execute, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("hello", "result", "error", "credit", "pong")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    hello: PoolHello
    result: Result
    error: Error
    credit: Credit
    pong: Pong
    def __init__(self, hello: _Optional[_Union[PoolHello, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ...) -> None: ...

class CallerHello(_message.Message):
    __slots__ = ("protocol_major", "protocol_minor", "checkpoint_id", "caller_id")
    PROTOCOL_MAJOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    protocol_major: int
    protocol_minor: int
    checkpoint_id: str
    caller_id: str
    def __init__(self, protocol_major: _Optional[int] = ..., protocol_minor: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., caller_id: _Optional[str] = ...) -> None: ...

class PoolHello(_message.Message):
    __slots__ = ("protocol_major", "protocol_minor", "checkpoint_id", "numerics_id", "pool_id", "incarnation", "accepted_dtypes", "max_rows", "credit", "pieces")
    PROTOCOL_MAJOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_DTYPES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    protocol_major: int
    protocol_minor: int
    checkpoint_id: str
    numerics_id: str
    pool_id: str
    incarnation: int
    accepted_dtypes: _containers.RepeatedScalarFieldContainer[_tensor_pb2.DType]
    max_rows: int
    credit: Credit
    pieces: _pieces_pb2.PieceSet
    def __init__(self, protocol_major: _Optional[int] = ..., protocol_minor: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., numerics_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., accepted_dtypes: _Optional[_Iterable[_Union[_tensor_pb2.DType, str]]] = ..., max_rows: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., pieces: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ...) -> None: ...

class Execute(_message.Message):
    __slots__ = ("call_id", "layer_idx", "phase", "timeout_ms", "topology_version", "combine", "hidden", "row_splits", "expert_ids", "weights", "checksum")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMBINE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    ROW_SPLITS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    layer_idx: int
    phase: Phase
    timeout_ms: int
    topology_version: int
    combine: Combine
    hidden: _tensor_pb2.Tensor
    row_splits: bytes
    expert_ids: bytes
    weights: bytes
    checksum: int
    def __init__(self, call_id: _Optional[int] = ..., layer_idx: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., timeout_ms: _Optional[int] = ..., topology_version: _Optional[int] = ..., combine: _Optional[_Union[Combine, str]] = ..., hidden: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., row_splits: _Optional[bytes] = ..., expert_ids: _Optional[bytes] = ..., weights: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    def __init__(self, call_id: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("call_id", "rows", "queue_us", "compute_us", "checksum", "overflowed")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    OVERFLOWED_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    rows: _tensor_pb2.Tensor
    queue_us: int
    compute_us: int
    checksum: int
    overflowed: bool
    def __init__(self, call_id: _Optional[int] = ..., rows: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., checksum: _Optional[int] = ..., overflowed: _Optional[bool] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("max_inflight_calls", "max_inflight_rows")
    MAX_INFLIGHT_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_INFLIGHT_ROWS_FIELD_NUMBER: _ClassVar[int]
    max_inflight_calls: int
    max_inflight_rows: int
    def __init__(self, max_inflight_calls: _Optional[int] = ..., max_inflight_rows: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("call_id", "code", "message", "not_holding")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NOT_HOLDING_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    code: ErrorCode
    message: str
    not_holding: Piece
    def __init__(self, call_id: _Optional[int] = ..., code: _Optional[_Union[ErrorCode, str]] = ..., message: _Optional[str] = ..., not_holding: _Optional[_Union[Piece, _Mapping]] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("layer_idx", "expert_id")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    EXPERT_ID_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    expert_id: int
    def __init__(self, layer_idx: _Optional[int] = ..., expert_id: _Optional[int] = ...) -> None: ...

class DescribePoolRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribePoolResponse(_message.Message):
    __slots__ = ("hello", "weight_bytes", "calls_total", "streams", "queued_calls")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_CALLS_FIELD_NUMBER: _ClassVar[int]
    hello: PoolHello
    weight_bytes: int
    calls_total: int
    streams: int
    queued_calls: int
    def __init__(self, hello: _Optional[_Union[PoolHello, _Mapping]] = ..., weight_bytes: _Optional[int] = ..., calls_total: _Optional[int] = ..., streams: _Optional[int] = ..., queued_calls: _Optional[int] = ...) -> None: ...
