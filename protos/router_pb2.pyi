from protos import pieces_pb2 as _pieces_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_ROLE_UNSPECIFIED: _ClassVar[MemberRole]
    MEMBER_ROLE_POOL: _ClassVar[MemberRole]
    MEMBER_ROLE_ATTENTION: _ClassVar[MemberRole]

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATE_UNSPECIFIED: _ClassVar[MemberState]
    MEMBER_STATE_LOADING: _ClassVar[MemberState]
    MEMBER_STATE_READY: _ClassVar[MemberState]
    MEMBER_STATE_DRAINING: _ClassVar[MemberState]
MEMBER_ROLE_UNSPECIFIED: MemberRole
MEMBER_ROLE_POOL: MemberRole
MEMBER_ROLE_ATTENTION: MemberRole
MEMBER_STATE_UNSPECIFIED: MemberState
MEMBER_STATE_LOADING: MemberState
MEMBER_STATE_READY: MemberState
MEMBER_STATE_DRAINING: MemberState

class JoinRequest(_message.Message):
    __slots__ = ("register", "status", "leave")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    register: Register
    status: MemberStatus
    leave: Leave
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., status: _Optional[_Union[MemberStatus, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Register(_message.Message):
    __slots__ = ("role", "member_id", "incarnation", "address", "checkpoint_id", "numerics_id", "num_layers", "num_experts", "protocol_major", "protocol_minor", "offer", "metrics_address", "process_key")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAJOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_KEY_FIELD_NUMBER: _ClassVar[int]
    role: MemberRole
    member_id: str
    incarnation: int
    address: str
    checkpoint_id: str
    numerics_id: str
    num_layers: int
    num_experts: int
    protocol_major: int
    protocol_minor: int
    offer: PoolOffer
    metrics_address: str
    process_key: bytes
    def __init__(self, role: _Optional[_Union[MemberRole, str]] = ..., member_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., numerics_id: _Optional[str] = ..., num_layers: _Optional[int] = ..., num_experts: _Optional[int] = ..., protocol_major: _Optional[int] = ..., protocol_minor: _Optional[int] = ..., offer: _Optional[_Union[PoolOffer, _Mapping]] = ..., metrics_address: _Optional[str] = ..., process_key: _Optional[bytes] = ...) -> None: ...

class PoolOffer(_message.Message):
    __slots__ = ("available", "requested", "capacity_pieces", "piece_bytes", "speed", "experts_per_s")
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_PIECES_FIELD_NUMBER: _ClassVar[int]
    PIECE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_PER_S_FIELD_NUMBER: _ClassVar[int]
    available: _pieces_pb2.PieceSet
    requested: _pieces_pb2.PieceSet
    capacity_pieces: int
    piece_bytes: int
    speed: float
    experts_per_s: float
    def __init__(self, available: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ..., requested: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ..., capacity_pieces: _Optional[int] = ..., piece_bytes: _Optional[int] = ..., speed: _Optional[float] = ..., experts_per_s: _Optional[float] = ...) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("ready", "state", "busy_ratio", "queued", "running", "kv_usage_ratio", "activations", "acked_assignment", "load_progress_ratio")
    READY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BUSY_RATIO_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    KV_USAGE_RATIO_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    ACKED_ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    LOAD_PROGRESS_RATIO_FIELD_NUMBER: _ClassVar[int]
    ready: _pieces_pb2.PieceSet
    state: MemberState
    busy_ratio: float
    queued: int
    running: int
    kv_usage_ratio: float
    activations: _containers.RepeatedCompositeFieldContainer[LayerActivations]
    acked_assignment: int
    load_progress_ratio: float
    def __init__(self, ready: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ..., state: _Optional[_Union[MemberState, str]] = ..., busy_ratio: _Optional[float] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., kv_usage_ratio: _Optional[float] = ..., activations: _Optional[_Iterable[_Union[LayerActivations, _Mapping]]] = ..., acked_assignment: _Optional[int] = ..., load_progress_ratio: _Optional[float] = ...) -> None: ...

class LayerActivations(_message.Message):
    __slots__ = ("layer_idx", "expert_ids", "token_counts", "step_counts")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNTS_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNTS_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    expert_ids: _containers.RepeatedScalarFieldContainer[int]
    token_counts: _containers.RepeatedScalarFieldContainer[int]
    step_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layer_idx: _Optional[int] = ..., expert_ids: _Optional[_Iterable[int]] = ..., token_counts: _Optional[_Iterable[int]] = ..., step_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("welcome", "assignment")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignment: Assignment
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("lease_ms", "seen_address")
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    lease_ms: int
    seen_address: str
    def __init__(self, lease_ms: _Optional[int] = ..., seen_address: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("version", "hold", "only_here")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    ONLY_HERE_FIELD_NUMBER: _ClassVar[int]
    version: int
    hold: _pieces_pb2.PieceSet
    only_here: _pieces_pb2.PieceSet
    def __init__(self, version: _Optional[int] = ..., hold: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ..., only_here: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ...) -> None: ...

class WatchTopologyRequest(_message.Message):
    __slots__ = ("watcher_id", "role", "acked")
    WATCHER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    watcher_id: str
    role: MemberRole
    acked: Version
    def __init__(self, watcher_id: _Optional[str] = ..., role: _Optional[_Union[MemberRole, str]] = ..., acked: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class WatchTopologyResponse(_message.Message):
    __slots__ = ("topology",)
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("epoch", "counter")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    counter: int
    def __init__(self, epoch: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("version", "checkpoint_id", "num_layers", "num_experts", "pools", "attentions", "uncovered_pieces", "first_uncovered")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    ATTENTIONS_FIELD_NUMBER: _ClassVar[int]
    UNCOVERED_PIECES_FIELD_NUMBER: _ClassVar[int]
    FIRST_UNCOVERED_FIELD_NUMBER: _ClassVar[int]
    version: Version
    checkpoint_id: str
    num_layers: int
    num_experts: int
    pools: _containers.RepeatedCompositeFieldContainer[PoolEntry]
    attentions: _containers.RepeatedCompositeFieldContainer[AttentionEntry]
    uncovered_pieces: int
    first_uncovered: _containers.RepeatedCompositeFieldContainer[PieceCount]
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., checkpoint_id: _Optional[str] = ..., num_layers: _Optional[int] = ..., num_experts: _Optional[int] = ..., pools: _Optional[_Iterable[_Union[PoolEntry, _Mapping]]] = ..., attentions: _Optional[_Iterable[_Union[AttentionEntry, _Mapping]]] = ..., uncovered_pieces: _Optional[int] = ..., first_uncovered: _Optional[_Iterable[_Union[PieceCount, _Mapping]]] = ...) -> None: ...

class PieceCount(_message.Message):
    __slots__ = ("layer_idx", "count")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    count: int
    def __init__(self, layer_idx: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class PoolEntry(_message.Message):
    __slots__ = ("pool_id", "incarnation", "address", "numerics_id", "pieces", "state")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    incarnation: int
    address: str
    numerics_id: str
    pieces: _pieces_pb2.PieceSet
    state: MemberState
    def __init__(self, pool_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ..., numerics_id: _Optional[str] = ..., pieces: _Optional[_Union[_pieces_pb2.PieceSet, _Mapping]] = ..., state: _Optional[_Union[MemberState, str]] = ...) -> None: ...

class AttentionEntry(_message.Message):
    __slots__ = ("attention_id", "incarnation", "address", "state")
    ATTENTION_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    attention_id: str
    incarnation: int
    address: str
    state: MemberState
    def __init__(self, attention_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ..., state: _Optional[_Union[MemberState, str]] = ...) -> None: ...

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTopologyResponse(_message.Message):
    __slots__ = ("topology", "members")
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    topology: Topology
    members: _containers.RepeatedCompositeFieldContainer[MemberReport]
    def __init__(self, topology: _Optional[_Union[Topology, _Mapping]] = ..., members: _Optional[_Iterable[_Union[MemberReport, _Mapping]]] = ...) -> None: ...

class MemberReport(_message.Message):
    __slots__ = ("role", "member_id", "address", "metrics_address", "status", "silent_ms", "unready_reason", "experts_per_s")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    UNREADY_REASON_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_PER_S_FIELD_NUMBER: _ClassVar[int]
    role: MemberRole
    member_id: str
    address: str
    metrics_address: str
    status: MemberStatus
    silent_ms: int
    unready_reason: str
    experts_per_s: float
    def __init__(self, role: _Optional[_Union[MemberRole, str]] = ..., member_id: _Optional[str] = ..., address: _Optional[str] = ..., metrics_address: _Optional[str] = ..., status: _Optional[_Union[MemberStatus, _Mapping]] = ..., silent_ms: _Optional[int] = ..., unready_reason: _Optional[str] = ..., experts_per_s: _Optional[float] = ...) -> None: ...

class DrainPoolRequest(_message.Message):
    __slots__ = ("pool_id", "undo")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    undo: bool
    def __init__(self, pool_id: _Optional[str] = ..., undo: _Optional[bool] = ...) -> None: ...

class DrainPoolResponse(_message.Message):
    __slots__ = ("held_pieces",)
    HELD_PIECES_FIELD_NUMBER: _ClassVar[int]
    held_pieces: int
    def __init__(self, held_pieces: _Optional[int] = ...) -> None: ...

class GetExpertLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetExpertLoadResponse(_message.Message):
    __slots__ = ("num_layers", "num_experts", "token_counts")
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNTS_FIELD_NUMBER: _ClassVar[int]
    num_layers: int
    num_experts: int
    token_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, num_layers: _Optional[int] = ..., num_experts: _Optional[int] = ..., token_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class RebalanceRequest(_message.Message):
    __slots__ = ("dry_run",)
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    def __init__(self, dry_run: _Optional[bool] = ...) -> None: ...

class RebalanceResponse(_message.Message):
    __slots__ = ("moving_pieces", "imbalance_before", "imbalance_after", "moves", "last_decision")
    MOVING_PIECES_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    LAST_DECISION_FIELD_NUMBER: _ClassVar[int]
    moving_pieces: int
    imbalance_before: float
    imbalance_after: float
    moves: _containers.RepeatedCompositeFieldContainer[PieceMove]
    last_decision: str
    def __init__(self, moving_pieces: _Optional[int] = ..., imbalance_before: _Optional[float] = ..., imbalance_after: _Optional[float] = ..., moves: _Optional[_Iterable[_Union[PieceMove, _Mapping]]] = ..., last_decision: _Optional[str] = ...) -> None: ...

class PieceMove(_message.Message):
    __slots__ = ("layer_idx", "expert_id", "weight", "loads_on", "leaves")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    EXPERT_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LOADS_ON_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    expert_id: int
    weight: float
    loads_on: _containers.RepeatedScalarFieldContainer[str]
    leaves: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layer_idx: _Optional[int] = ..., expert_id: _Optional[int] = ..., weight: _Optional[float] = ..., loads_on: _Optional[_Iterable[str]] = ..., leaves: _Optional[_Iterable[str]] = ...) -> None: ...
