"""What is MiniMax-M2 as a family? Its config keys, tensor names and chat format in one place."""

from moe_model.chat.thinking import ThinkTags
from moe_model.config import GenerationDefaults
from moe_model.families.family import ChatFormat, Family
from moe_model.families.minimax_m2.config_keys import parse_config
from moe_model.families.minimax_m2.grammars import call_rules
from moe_model.families.minimax_m2.markers import (
    PROMPT_START,
    ROLE_START,
    THINK_END,
    THINK_START,
    TOOL_CALLS_END,
    TOOL_CALLS_START,
    TURN_END,
)
from moe_model.families.minimax_m2.parser import OutputParser
from moe_model.families.minimax_m2.tensor_names import MiniMaxM2Names
from moe_model.families.minimax_m2.tiny_config import tiny_config

MINIMAX_M2 = Family(
    parse_config=parse_config,
    tensor_names=MiniMaxM2Names,
    chat_format=ChatFormat(
        role_start=ROLE_START,
        turn_markers=(PROMPT_START, ROLE_START, TURN_END),
        output_tags=(THINK_START, THINK_END, TOOL_CALLS_START, TOOL_CALLS_END),
        call_start=TOOL_CALLS_START,
        think=ThinkTags(THINK_START, THINK_END),
        make_parser=OutputParser,
        call_rules=call_rules,
    ),
    generation_defaults=GenerationDefaults(temperature=1.0, top_p=0.95, top_k=40),
    tiny_config=tiny_config,
)
