"""GET /get_model_info and /server_info: what do clients learn? Names and the context, no paths."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.info import VERSION
from gateway.http.requests import gateway_of, json_response


async def model_info(request: Request) -> Response:
    """The model's name, where SGLang tells a path, and its kind."""
    gateway = gateway_of(request)
    name = gateway.model.name
    return json_response(
        {
            "model_path": name,
            "served_model_name": name,
            "tokenizer_path": name,
            "is_generation": True,
            "preferred_sampling_params": None,
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": gateway.model.config.model_type,
        }
    )


async def server_info(request: Request) -> Response:
    """The model's name, its context, and this gateway's version."""
    gateway = gateway_of(request)
    name = gateway.model.name
    return json_response(
        {
            "model_path": name,
            "served_model_name": name,
            "context_length": gateway.max_model_len,
            "max_req_input_len": gateway.max_model_len - 1,
            "version": VERSION,
        }
    )
