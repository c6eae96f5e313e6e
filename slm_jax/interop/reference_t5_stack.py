"""`T5Stack` of `transformers` as a decoder that listens to nothing, with a head: what a stage of AudioLM is held to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.interop.reference import Arrays, Reference, draw_weights, recorded, reference_of

T5_STACKS = (("t5_stack", "relu"), ("t5_stack", "gated-gelu"))
SHAPE: dict[str, Any] = {
    "model_type": "t5_stack",
    "is_decoder": True,
    "vocab_size": 41,
    "d_model": 36,
    "d_kv": 10,
    "d_ff": 50,
    "num_heads": 3,
    "num_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "tie_word_embeddings": False,
}
"""Heads that do not add up to the width, and distances beyond the last bucket."""


def tiny_t5_stack(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    hub_config = SHAPE | {"feed_forward_proj": variant}
    model = draw_weights(stack_with_head()(t5_config(hub_config)), seed)
    return reference_of(family, variant, model, hub_config, dtype, True, _activations)


def t5_stack_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder, in full precision whatever the file holds."""
    import torch

    from slm_jax.interop.readers import open_weights

    source, model = open_weights(folder), stack_with_head()(t5_config(hub_config))
    state = {name: torch.tensor(source.read(name)).float() for name in source.entries}
    missing, unknown = model.load_state_dict(state, strict=False)
    lost = [name for name in (*missing, *unknown) if ".layer.1." not in name]
    require(not lost, "weights", lost, "must be those of a T5Stack with lm_head.weight")
    return reference_of(family, folder.name, model.eval(), hub_config, dtype, False, _activations)


def t5_config(hub_config: Mapping[str, Any]) -> Any:
    """The `T5Config` of a folder's `config.json`."""
    import transformers

    apart = ("model_type", "architectures", "torch_dtype", "is_encoder_decoder")
    fields = {name: value for name, value in hub_config.items() if name not in apart}
    return transformers.T5Config(**fields, is_encoder_decoder=False)


def stack_with_head() -> Any:
    """The class: `T5Stack` with `lm_head`; its model gives logits, with `last_only` those of the last step."""
    from torch import nn
    from transformers.models.t5.modeling_t5 import T5Stack

    class StackWithHead(T5Stack):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

        def forward(self, input_ids: Any, last_only: bool = False, **given: Any) -> Any:
            features = super().forward(input_ids=input_ids, **given).last_hidden_state
            return self.lm_head(features[:, -1:] if last_only else features)

    return StackWithHead


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Every layer, the last norm, the logits; distances hold on whichever side rows are padded."""
    import torch

    ids, mask = torch.tensor(inputs["ids"]), inputs["mask"]
    real = None if mask is None else torch.tensor(mask.astype(np.int64))
    places = {f"layer_{i + 1}": f"block.{i}" for i in range(len(model.block))}
    places = {"embeddings": ">block.0", **places, "final_norm": "final_layer_norm", "logits": "lm_head"}
    return recorded(model, places, lambda: model(ids, attention_mask=real, use_cache=False))
