"""What is known once the checkpoint is open, before any weights are read?"""

import torch

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.kv.budget import count_blocks
from attention_svc.vocabulary import Vocabulary
from moe_model.backends.choice import choose_backend
from moe_model.numerics import DTYPES
from moe_model.weights.held_formats import held_formats
from moe_model.weights.load_flag import parse_load
from moe_model.weights.open import open_weights, verify_attention


class LoadedModel:
    """A checked checkpoint, and the formats, device and sizes to serve it with."""

    def __init__(self, config: AttentionConfig):
        """Opens and checks the checkpoint. Raises ValueError with a one-line reason."""
        self.weights, manifest = open_weights(
            config.model,
            partial=config.transport == "grpc",
            load=parse_load(config.load),
            device=config.device,
        )
        self.config = self.weights.config
        self.vocabulary = Vocabulary.load(config.model, self.config)
        verify_attention(self.weights, manifest)
        self.checkpoint_id = manifest.checkpoint_id
        try:
            device = torch.device(config.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch built without it asserts
            raise ValueError(f"--device {config.device}: {str(error).splitlines()[0]}") from None
        formats = self.formats = held_formats(
            config.model,
            self.config,
            dtype=config.dtype,
            expert_dtype=config.expert_dtype,
            linear_dtype=config.linear_dtype,
            device=device.type,
        )
        self.backend = choose_backend(DTYPES[formats.compute_dtype], device)
        self.num_threads = self.backend.set_threads(config.threads)
        self.kernel = self.backend.numerics(formats.linears)
        limit = self.config.max_position_embeddings
        if config.max_model_len > limit:
            raise ValueError(f"--max-model-len {config.max_model_len} exceeds the model's {limit}")
        self.layout = self.backend.kv_layout(config.kv_dtype, self.config, BLOCK_SIZE)
        self.num_blocks = count_blocks(config, self.config, self.layout, formats, device)
        # A sequence longer than the cache could never run.
        self.max_len = min(config.max_model_len or limit, self.num_blocks * BLOCK_SIZE)
