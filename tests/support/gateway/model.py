"""A checkpoint folder with everything the gateway reads and no weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moe_model.text.byte_level import CHARACTER_OF_BYTE

VOCAB_SIZE = 320
CONTEXT = 256
ROOMY_CONTEXT = 4096
NAME = "tiny-m2"

MARKERS = {
    "]~!b[": (300, True),
    "]~b]": (301, True),
    "[e~[": (302, True),
    "<think>": (303, False),
    "</think>": (304, False),
    "<minimax:tool_call>": (305, False),
    "</minimax:tool_call>": (306, False),
}
EOS = 302
THINK, END_OF_THINK, TOOL_CALL, END_OF_TOOL_CALL = 303, 304, 305, 306
HOLE = 299
"""An id inside the vocabulary that no token has."""

_WORDS = ("he", "ll", "hell", "hello", "th", "in", "ng", "ing")

_TEMPLATE = """\
{{- ']~!b[]~b]system\\n' }}
{%- if messages[0].role == 'system' -%}{{ messages[0].content }}{%- else -%}You help.{%- endif -%}
{%- if tools %}{{ '\\n<tools>\\n' }}
    {%- for tool in tools %}{{ tool.function | tojson }}{{ '\\n' }}{% endfor -%}
    {{ '</tools>' }}{% endif -%}
{{- '[e~[\\n' -}}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {{- ']~b]user\\n' + message.content + '[e~[\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- ']~b]ai\\n' -}}
    {%- if message.reasoning_content -%}
    {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}
    {%- endif -%}
    {{- message.content -}}
    {%- if message.tool_calls -%}
      {{- '\\n<minimax:tool_call>\\n' -}}
      {%- for call in message.tool_calls -%}
        {{- '<invoke name="' + call.function.name + '">\\n' -}}
        {%- for key, value in call.function.arguments.items() -%}
          {{- '<parameter name="' + key + '">' -}}
          {{- value if value is string else (value | tojson) -}}
          {{- '</parameter>\\n' -}}
        {%- endfor -%}
        {{- '</invoke>\\n' -}}
      {%- endfor -%}
      {{- '</minimax:tool_call>' -}}
    {%- endif -%}
    {{- '[e~[\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- ']~b]tool\\n<response>' -}}
    {%- if message.content is string -%}{{- message.content -}}
    {%- else -%}{%- for part in message.content -%}{{- part.text -}}{%- endfor -%}{%- endif -%}
    {{- '</response>[e~[\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ']~b]ai\\n<think>\\n' -}}{%- endif -%}
"""


def write_tiny_model(folder: Path, *, context: int = CONTEXT) -> Path:
    """Tokenizer, template and configs; a character outside the few words costs its UTF-8 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", byte_tokenizer(MARKERS))
    _write(folder / "config.json", _config(context))
    _write(
        folder / "generation_config.json",
        {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 40, "eos_token_id": EOS},
    )
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    return folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def byte_tokenizer(markers: Mapping[str, tuple[int, bool]]) -> dict[str, Any]:
    """tokenizer.json with the bytes, a few words and these markers: (id, whether special)."""
    vocab = {CHARACTER_OF_BYTE[byte]: byte for byte in range(256)}
    merges = []
    for word in _WORDS:
        left = next(
            word[:i] for i in range(len(word) - 1, 0, -1) if word[:i] in vocab and word[i:] in vocab
        )
        merges.append([left, word[len(left) :]])
        vocab[word] = len(vocab)
    # Listed in the model as well, so that the library keeps ids above a hole.
    vocab.update({text: token_id for text, (token_id, _) in markers.items()})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": special,
            }
            for text, (token_id, special) in markers.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _config(context: int) -> dict[str, Any]:
    return {
        "model_type": "minimax_m2",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rotary_dim": 8,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 32,
        "max_position_embeddings": context,
        "eos_token_id": EOS,
    }
