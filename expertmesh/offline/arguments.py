"""Which of vLLM's engine arguments have no effect here? They are accepted with a log line."""

import difflib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

log = logging.getLogger(__name__)

_SPLIT = "experts are split over pools, not over ranks"
_MEMORY = "the KV cache is sized by kv_memory"
_FILES = "weights are read from the model folder, nothing is downloaded"
_NO_GRAPHS = "on GPUs a decode step is always one graph"
_NEVER_CODE = "code in a checkpoint is never run"

NOT_APPLICABLE: Mapping[str, str] = {
    "tokenizer": "the tokenizer is the model folder's own",
    "tokenizer_mode": "there is one tokenizer",
    "trust_remote_code": _NEVER_CODE,
    "allowed_local_media_path": "text only",
    "allowed_media_domains": "text only",
    "limit_mm_per_prompt": "text only",
    "mm_processor_kwargs": "text only",
    "tensor_parallel_size": _SPLIT,
    "pipeline_parallel_size": _SPLIT,
    "data_parallel_size": _SPLIT,
    "enable_expert_parallel": _SPLIT,
    "distributed_executor_backend": _SPLIT,
    "disable_custom_all_reduce": _SPLIT,
    "worker_cls": _SPLIT,
    "quantization": "expert_dtype and linear_dtype say how weights are held",
    "kv_cache_dtype": "the KV cache has the compute dtype",
    "revision": _FILES,
    "tokenizer_revision": _FILES,
    "code_revision": _FILES,
    "download_dir": _FILES,
    "load_format": 'weights are read from the model folder, or made up: load="random:SEED"',
    "hf_token": _FILES,
    "hf_overrides": "the config is the model folder's own",
    "hf_config_path": "the config is the model folder's own",
    "config_format": "the config is the model folder's own",
    "model_impl": "there is one implementation",
    "swap_space": "kv_host_memory is where evicted blocks go",
    "cpu_offload_gb": "experts that do not fit belong into pools",
    "num_gpu_blocks_override": _MEMORY,
    "block_size": "blocks have 16 positions",
    "enforce_eager": _NO_GRAPHS,
    "max_seq_len_to_capture": _NO_GRAPHS,
    "compilation_config": _NO_GRAPHS,
    "cuda_graph_sizes": _NO_GRAPHS,
    "enable_prefix_caching": "prefixes are shared by the engine's own rule",
    "enable_chunked_prefill": "prefill is always chunked",
    "disable_log_stats": "an offline engine logs nothing",
    "disable_async_output_proc": "there is one way to process output",
    "scheduling_policy": "first come, first served",
    "async_scheduling": "there is one scheduler",
    "max_logprobs": "20, fixed",
    "served_model_name": "there is no server",
    "runner": "the model generates",
    "convert": "the model generates",
    "task": "the model generates",
    "pooler_config": "the model generates",
    "override_pooler_config": "the model generates",
    "enable_lora": "adapters are not supported",
    "max_loras": "adapters are not supported",
    "max_lora_rank": "adapters are not supported",
    "speculative_config": "speculation is not supported yet",
    "reasoning_parser": "chat answers always come parsed, in `message`",
    "structured_outputs_config": "there is one grammar engine",
    "guided_decoding_backend": "there is one grammar engine",
    "generation_config_path": "the defaults are the model folder's own",
    "logits_processors": "custom processors are not supported",
    "disable_cascade_attention": "there is one kind of attention",
    "preemption_mode": "preempted sequences compute again what no cache has",
}
"""vLLM's argument -> why it has no effect here."""

ENGINE_ONLY = (
    "load",
    "dtype",
    "expert_dtype",
    "linear_dtype",
    "device",
    "gpu_memory_utilization",
    "kv_memory",
    "kv_cache_memory_bytes",
    "kv_host_memory",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "threads",
)
"""Arguments for an engine in this process; a running cluster has its own settings."""


def note_ignored(arguments: Mapping[str, Any], reasons: Mapping[str, str], where: str) -> None:
    """Log a line for each given argument, all of which have no effect."""
    for name in arguments:
        log.warning("%s: %s is ignored: %s", where, name, reasons[name])


def note_unknown(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Log a line for each argument that is not known here, with those that are most like it."""
    for name in names:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        log.warning("%s: %s is ignored: it is not known here%s", where, name, hint)


_FLAGS = {
    "--max-running": "max_num_seqs",
    "--max-batch-tokens": "max_num_batched_tokens",
    "--max-model-len": "max_model_len",
    "--kv-memory": "kv_memory",
    "--kv-host-memory": "kv_host_memory",
    "--device": "device",
    "--gpu-memory": "gpu_memory_utilization",
    "--dtype": "dtype",
    "--expert-dtype": "expert_dtype",
    "--linear-dtype": "linear_dtype",
    "--threads": "threads",
    "--model": "model",
    "--load": "load",
}
"""The attention service's flags -> the arguments that set them here."""


def with_argument_names(message: str) -> str:
    """A message of the service in this process, about the arguments instead of its flags."""
    return re.sub(r"--[a-z-]+", lambda flag: _FLAGS.get(flag[0], flag[0]), message)
