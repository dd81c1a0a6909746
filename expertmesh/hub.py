"""How are single tensors downloaded from a model repository? By byte range, with huggingface_hub.

Its settings apply: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

import json
from pathlib import Path
from typing import Any

from moe_model.weights.checkpoint import INDEX_NAME, SINGLE_NAME
from moe_model.weights.safetensors_file import TensorEntry, read_entries

FIRST_READ_BYTES = 1024 * 1024
"""Enough for most headers, so that a shard's header takes one request."""
MAX_FILE_BYTES = 128 * 1024 * 1024
TIMEOUT_S = 60.0


class HubSource:
    """The tensors of a repository. Every failure is a ValueError with one clear line."""

    def __init__(self, repo: str, revision: str | None = None):
        """Reads the index. `revision`: branch, tag or commit."""
        self._repo, self._revision = repo, revision
        text = self.file(INDEX_NAME)
        self._weight_map: dict[str, str] = {}
        if text is not None:
            try:
                self._weight_map = dict(json.loads(text)["weight_map"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{repo}: {INDEX_NAME} is no JSON with a weight_map") from None
        self._entries: dict[str, dict[str, TensorEntry]] = {}

    def find(self, name: str) -> tuple[str, TensorEntry] | None:
        shard = self._weight_map.get(name, None if self._weight_map else SINGLE_NAME)
        if shard is None:
            return None
        if shard not in self._entries:
            self._entries[shard] = self._header(shard)
        entry = self._entries[shard].get(name)
        return None if entry is None else (shard, entry)

    def read(self, shard: str, start: int, end: int) -> bytes:
        content, _ = self._range(shard, start, end)
        if len(content) != end - start:
            raise ValueError(
                f"{self._repo}: {shard}: got {len(content)} bytes instead of {end - start}"
            )
        return content

    def file(self, name: str) -> bytes | None:
        """The content of a small file; None if the repository does not have it."""
        answer = self._get(name, {})
        if answer is None:
            return None
        if len(answer.content) > MAX_FILE_BYTES:
            raise ValueError(f"{self._repo}: {name} is larger than {MAX_FILE_BYTES} bytes")
        return bytes(answer.content)

    def _header(self, shard: str) -> dict[str, TensorEntry]:
        head, size = self._range(shard, 0, FIRST_READ_BYTES)
        needed = 8 + int.from_bytes(head[:8], "little")
        if len(head) < needed <= size:
            head, size = self._range(shard, 0, needed)
        return read_entries(Path(shard), head, size)

    def _range(self, name: str, start: int, end: int) -> tuple[bytes, int]:
        """(bytes, size of the whole file)."""
        answer = self._get(name, {"Range": f"bytes={start}-{end - 1}"})
        if answer is None:
            raise ValueError(f"{self._repo}: has no {name}")
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        if answer.status_code != 206 or not total.isdigit():
            raise ValueError(f"{self._repo}: {name}: the server does not support byte ranges")
        return bytes(answer.content), int(total)

    def _get(self, name: str, headers: dict[str, str]) -> Any:
        try:
            from huggingface_hub import hf_hub_url
            from huggingface_hub.utils import build_hf_headers, get_session
        except ImportError:
            raise ValueError(
                "huggingface_hub is not installed: pip install huggingface_hub"
            ) from None
        try:
            url = hf_hub_url(self._repo, name, revision=self._revision)
            answer = get_session().get(
                url, headers={**build_hf_headers(), **headers}, timeout=TIMEOUT_S
            )
        except Exception as error:  # the library does not say which HTTP client it uses
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"cannot fetch {self._repo}/{name}: {reason}") from None
        if answer.status_code == 404:
            return None
        if answer.status_code in (401, 403):
            raise ValueError(
                f"cannot fetch {self._repo}/{name}: {answer.status_code}; no such repository, or it"
                " needs a token (HF_TOKEN)"
            )
        if answer.status_code not in (200, 206):
            raise ValueError(f"cannot fetch {self._repo}/{name}: status {answer.status_code}")
        return answer
