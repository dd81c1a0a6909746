"""A long Generate call, followed from a thread, and what probes say meanwhile."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

import grpc

from protos import attention_pb2, attention_pb2_grpc

REQUEST_TIMEOUT_S = 60.0


LATER_S = 20.0
"""Far below the requests' own deadline and far above what a busy machine needs."""


PROMPT = [5, 6, 7, 8]


class Request(threading.Thread):
    """A long greedy Generate call, followed from a thread."""

    def __init__(self, address: str, max_tokens: int = 500, prompt: Sequence[int] = PROMPT):
        super().__init__(daemon=True)
        self._address = address
        self._prompt = prompt
        self._max_tokens = max_tokens
        self.tokens: list[int] = []
        self.finished: attention_pb2.Finished | None = None
        self.error: grpc.RpcError | None = None
        self.started = threading.Event()
        self.start()

    def run(self) -> None:
        sampling = attention_pb2.SamplingParams(
            max_tokens=self._max_tokens, top_p=1.0, repetition_penalty=1.0, ignore_eos=True
        )
        request = attention_pb2.GenerateRequest(prompt_token_ids=self._prompt, sampling=sampling)
        with grpc.insecure_channel(self._address) as channel:
            stub = attention_pb2_grpc.AttentionStub(channel)
            try:
                for response in stub.Generate(request, timeout=REQUEST_TIMEOUT_S):
                    self.tokens += response.tokens.token_ids
                    self.started.set()
                    if response.WhichOneof("event") == "finished":
                        self.finished = response.finished
            except grpc.RpcError as error:
                self.error = error
        self.started.set()

    def wait(self, timeout_s: float) -> "Request":
        self.join(timeout_s)
        assert not self.is_alive(), "the request hangs"
        return self


def readyz(ops_address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{ops_address}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until_readyz(ops_address: str, status: int) -> str:
    deadline = time.monotonic() + LATER_S
    while (got := readyz(ops_address))[0] != status:
        assert time.monotonic() < deadline, got
        time.sleep(0.05)
    return got[1]


def status_of(address: str) -> attention_pb2.GetStatusResponse:
    with grpc.insecure_channel(address) as channel:
        stub = attention_pb2_grpc.AttentionStub(channel)
        return stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=10)
