"""Regenerate the committed stubs: `make protos`.

Compiled from the repository root, so `protos/expert.proto` becomes
`protos.expert_pb2` and no import needs rewriting. The generator is pinned (dev
extra) to the lowest grpcio the package accepts: generated code may never be
newer than the runtime.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(out_dir: Path) -> int:
    """Write every stub below `out_dir`; returns protoc's exit status."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").glob("*.proto"))
    return protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"--python_out={out_dir}",
            f"--pyi_out={out_dir}",
            f"--grpc_python_out={out_dir}",
            *protos,
        ]
    )


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
