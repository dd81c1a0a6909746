"""The wire contract as it was at an older minor, in descriptors of its own beside today's.

`v1_0/` is never edited: it is what services in the field speak. A minor that is released gets a
folder of its own, and the oldest goes when no two adjacent minors need it any more.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc

FOLDER = Path(__file__).parent


class Frozen:
    """The messages and methods of one minor."""

    def __init__(self, minor: str):
        root = FOLDER / minor
        names = sorted(str(path.relative_to(root)) for path in root.glob("protos/*.proto"))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "set"
            assert protoc.main(["protoc", f"-I{root}", f"--descriptor_set_out={out}", *names]) == 0
            files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        self.files = []
        left = {file.name: file for file in files.file}
        while left:  # a file after those it imports
            name = next(n for n, file in left.items() if not set(file.dependency) & set(left))
            self._pool.Add(left.pop(name))
            self.files.append(self._pool.FindFileByName(name))

    def types_of(self, method: str) -> tuple[type[Message], type[Message]] | None:
        """(request, response) of "/package.Service/Method"; None when this minor has no such."""
        service, _, name = method.removeprefix("/").partition("/")
        try:
            found = self._pool.FindServiceByName(service).FindMethodByName(name)
        except KeyError:
            return None
        if found is None:
            return None
        return (
            message_factory.GetMessageClass(found.input_type),
            message_factory.GetMessageClass(found.output_type),
        )

    @staticmethod
    def speak(kind: type[Message], data: bytes) -> bytes:
        """What a peer of this minor would have sent: none of the fields that came later."""
        message = kind.FromString(data)
        message.DiscardUnknownFields()
        _set_minor(message)
        return message.SerializeToString()


@cache
def frozen(minor: str = "v1_0") -> Frozen:
    return Frozen(minor)


def _set_minor(message: Any) -> None:
    """In a hello or a registration, one message down in its frame."""
    kind = message.WhichOneof("frame") if message.DESCRIPTOR.oneofs_by_name.get("frame") else None
    inner = getattr(message, kind) if kind else None
    if inner is not None and "protocol_minor" in inner.DESCRIPTOR.fields_by_name:
        inner.protocol_minor = 0
