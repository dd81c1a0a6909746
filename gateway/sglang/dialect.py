"""Which paths speak SGLang's native API?"""

from gateway.http.dialect import Dialect
from gateway.sglang.answers import ANSWERS
from gateway.sglang.errors import SGLANG_ERRORS, SGLangError
from gateway.sglang.fields import SGLangRequest
from gateway.sglang.generate import generate
from gateway.sglang.info import model_info, server_info

_INFO = (
    ("/get_model_info", model_info),
    ("/model_info", model_info),
    ("/server_info", server_info),
    ("/get_server_info", server_info),
)
_REFUSED = {
    "/flush_cache": "cached prompts are other clients' too; they give way by themselves",
    "/start_profile": "this server is not profiled by its clients",
    "/stop_profile": "this server is not profiled by its clients",
}

SGLANG = Dialect(
    errors=SGLANG_ERRORS,
    answers=ANSWERS,
    error_model=SGLangError,
    prefixes=("/generate", *(path for path, _ in _INFO), *_REFUSED),
    gets=_INFO,
    posts=(("/generate", generate, SGLangRequest),),
    refusals=tuple(_REFUSED.items()),
)
