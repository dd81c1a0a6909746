from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExpertRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class LayerPieces(_message.Message):
    __slots__ = ("layer_idx", "ranges")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    ranges: _containers.RepeatedCompositeFieldContainer[ExpertRange]
    def __init__(self, layer_idx: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[ExpertRange, _Mapping]]] = ...) -> None: ...

class PieceSet(_message.Message):
    __slots__ = ("layers",)
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerPieces]
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerPieces, _Mapping]]] = ...) -> None: ...
