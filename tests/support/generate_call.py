"""One sequence through an attention service, checked on the way."""

import grpc

from protos import attention_pb2, attention_pb2_grpc


def generate(
    address: str, prompt: list[int], max_tokens: int, **sampling: float
) -> tuple[list[int], attention_pb2.Finished]:
    """All tokens of one Generate call; checks that indexes are gapless and the end comes once."""
    with grpc.insecure_channel(address) as channel:
        stub = attention_pb2_grpc.AttentionStub(channel)
        params = {"top_p": 1.0, "repetition_penalty": 1.0, **sampling}
        request = attention_pb2.GenerateRequest(
            prompt_token_ids=prompt,
            sampling=attention_pb2.SamplingParams(max_tokens=max_tokens, **params),
            report_timings=True,
        )
        tokens: list[int] = []
        finished = None
        for response in stub.Generate(request, timeout=60):
            assert finished is None
            if response.WhichOneof("event") == "tokens":
                assert response.tokens.index == len(tokens)
                tokens += response.tokens.token_ids
            else:
                finished = response.finished
        assert finished is not None
        return tokens, finished
