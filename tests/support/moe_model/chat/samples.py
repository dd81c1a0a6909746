"""A small M2-shaped tokenizer and chat template, written to a folder like a checkpoint's."""

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

SPECIAL_MARKERS = ["]~!b[", "]~b]", "[e~["]
TAG_MARKERS = ["<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"]
MARKERS = SPECIAL_MARKERS + TAG_MARKERS

CORPUS = [
    "the quick brown fox jumps over the lazy dog and thinks about tools and parameters",
    'tool call invoke name parameter response system user ai {"type": "object", "key": 12}',
    '<invoke name="x">\n<parameter name="y">value</parameter>\n</invoke> think thinking',
    "你好,世界。这是一个小模型。 ünïcödé text with 0123456789 digits and émojis 🙂🙃",
] * 4

# Written for these tests after the published description of M2's format.
TEMPLATE = r"""
{%- macro text_of(content) -%}
{%- if content is string %}{{ content }}{% else %}
{%- for part in content %}{{ part.text }}{% endfor %}{% endif %}
{%- endmacro -%}
{%- set opener = '<minimax:tool_call>' -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{{- ']~!b[' ~ ']~b]system\n' -}}
{{- messages[0].content if has_system and messages[0].content else 'You are helpful.' -}}
{%- if tools %}{{ '\n\n# Tools\n<tools>\n' }}
{%- for tool in tools %}{{ '<tool>' ~ (tool.function | tojson) ~ '</tool>\n' }}{% endfor -%}
{{ '</tools>\n\n' ~ opener ~ '\n...\n</minimax:tool_call>' }}{% endif -%}
{{ '[e~[\n' }}
{%- set ns = namespace(last_user=-1, called=false) -%}
{%- for m in turns -%}
{%- if m.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif -%}
{%- endfor -%}
{%- for m in turns -%}
{%- if m.role == 'user' %}{{ ']~b]user\n' ~ text_of(m.content) ~ '[e~[\n' }}
{%- elif m.role == 'assistant' %}{{ ']~b]ai\n' }}
{%- if m.reasoning_content and loop.index0 > ns.last_user -%}
{{ '<think>\n' ~ m.reasoning_content ~ '\n</think>\n\n' }}{% endif -%}
{{ text_of(m.content) }}
{%- set ns.called = m.tool_calls | length > 0 if m.tool_calls else false -%}
{%- if m.tool_calls %}{{ '\n' ~ opener ~ '\n' }}
{%- for call in m.tool_calls %}{{ '<invoke name="' + call.function.name + '">\n' }}
{%- for k, v in call.function.arguments.items() -%}
{{ '<parameter name="' + k + '">' }}{{ v if v is string else v | tojson }}{{ '</parameter>\n' }}
{%- endfor %}{{ '</invoke>\n' }}{% endfor %}{{ '</minimax:tool_call>' }}{% endif -%}
{{ '[e~[\n' }}
{%- elif m.role == 'tool' -%}
{%- if not ns.called %}{{ raise_exception('tool message without a call') }}{% endif -%}
{%- if loop.first or turns[loop.index0 - 1].role != 'tool' %}{{ ']~b]tool' }}{% endif -%}
{{ '\n<response>' ~ text_of(m.content) ~ '</response>' }}
{%- if loop.last or turns[loop.index0 + 1].role != 'tool' %}{{ '[e~[\n' }}{% endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ ']~b]ai\n<think>\n' }}{% endif -%}
"""


def train_tokenizer(*, markers_in_vocab: bool) -> tokenizers.Tokenizer:
    """A byte-level BPE with digits split singly, and M2's markers as added tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=MARKERS if markers_in_vocab else [],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_MARKERS])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in TAG_MARKERS])
    return tokenizer


def write_checkpoint(folder: Path, tokenizer_json: dict, template: str = TEMPLATE) -> Path:
    """The tokenizer files of a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json), encoding="utf-8")
    config = {"bos_token": "]~!b[", "eos_token": {"content": "[e~["}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def tokenizer_json(kind: str) -> dict:
    """tokenizer.json in one of three layouts that real checkpoints have.

    "separate": markers only in added_tokens. "in_vocab": trainers list them in the model too,
    where they are even made reachable by merges here. "id_holes": so too, with ids left out.
    """
    content = json.loads(train_tokenizer(markers_in_vocab=kind != "separate").to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] in SPECIAL_MARKERS
    if kind == "in_vocab":
        merges = [["<", "t"], ["<t", "hink"], ["<think", ">"], ["]", "~"], ["]~", "b"]]
        merges += [["]~b", "]"], ["h", "i"], ["n", "k"], ["hi", "nk"]]
        vocab = content["model"]["vocab"]
        for left, right in merges:
            vocab.setdefault(left + right, len(vocab))
        content["model"]["merges"] = merges + content["model"]["merges"]
        content["model"]["ignore_merges"] = True
    if kind == "id_holes":
        for rank, token in enumerate(content["added_tokens"]):
            token["id"] = content["model"]["vocab"][token["content"]] = 1000 + 2 * rank
    return content
