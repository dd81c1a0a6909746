"""GET /tokenizer_info and /props: what do clients of vLLM and llama.cpp ask about the server?

No paths: the model is told by its name.
"""

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.info import VERSION
from gateway.http.requests import gateway_of, json_response


async def tokenizer_info(request: Request) -> Response:
    """The tokenizer's special tokens and the chat template, as vLLM tells them."""
    model = gateway_of(request).model
    return json_response(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "vocab_size": model.tokenizer.vocab_size,
            "model_max_length": gateway_of(request).max_model_len,
            "bos_token": None,
            "eos_token": model.tokenizer.token_bytes(min(model.eos_token_ids)).decode(),
            "pad_token": None,
            "chat_template": model.template.source,
        }
    )


async def props(request: Request) -> Response:
    """The context, the sampling's defaults and the chat template, as llama.cpp tells them."""
    gateway = gateway_of(request)
    model = gateway.model
    return json_response(
        {
            "default_generation_settings": {
                "n_ctx": gateway.max_model_len,
                "params": {
                    name: getattr(model.defaults, name)
                    for name in ("temperature", "top_k", "top_p")
                },
            },
            "total_slots": gateway.limits.concurrent_per_key,
            "model_alias": model.name,
            "model_path": model.name,
            "chat_template": model.template.source,
            "modalities": {"vision": False, "audio": False},
            "build_info": f"expertmesh-{VERSION}",
            "is_sleeping": False,
        }
    )
