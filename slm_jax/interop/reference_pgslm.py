"""The language model of pGSLM written out in PyTorch under fairseq's names, for which `transformers` has no class.

Source: Kharitonov et al. 2021; the stack is fairseq's decoder without a context (pre-norm, sinusoids from row 2).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.interop.family_pgslm import read_config
from slm_jax.interop.reference import Arrays, Reference, draw_weights, recorded, reference_of

PGSLMS = (("transformer_ulm", "classes"), ("transformer_ulm", "reals"), ("transformer_ulm", "no prosody"))
SHAPE: dict[str, Any] = {
    "model_type": "transformer_ulm",
    "decoder_layers": 3,
    "decoder_embed_dim": 36,
    "decoder_attention_heads": 3,
    "decoder_ffn_embed_dim": 50,
    "channel_sizes": [24, 11, 13],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "classes": {},
    "reals": {"channel_sizes": [24, 1, 1], "grids": [None, [0.0, 0.125, 20, 1.0], [-2.0, 0.25, 17, 0.5]]},
    "no prosody": {"ignore_duration_input": True, "ignore_f0_input": True},
}


def tiny_pgslm(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    hub_config = {**SHAPE, **VARIANTS[variant]}
    return _reference(family, variant, draw_weights(unit_language_model(hub_config), seed), hub_config, dtype, True)


def pgslm_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The model of a folder."""
    import torch

    from slm_jax.interop.readers import open_weights

    source, model = open_weights(folder), unit_language_model(hub_config)
    state = {name: torch.tensor(source.read(name)).float() for name in source.entries if name in model.state_dict()}
    model.load_state_dict(state)
    return _reference(family, folder.name, model.eval(), hub_config, dtype, False)


def _reference(family: str, variant: str, model: Any, hub_config: dict[str, Any], dtype: str, tiny: bool) -> Reference:
    made = reference_of(family, variant, model, json.loads(json.dumps(hub_config)), dtype, tiny, _activations)
    return Reference(family, variant, "fairseq", made.hub_config, made.weights, made.run, tiny)


def unit_language_model(hub_config: Mapping[str, Any]) -> Any:
    """`model(units, others)`: features `[B, S, sum of channel sizes]`; others are ids or real numbers `[B, S]` each."""
    import torch
    from torch import nn

    width, heads = hub_config["decoder_embed_dim"], hub_config["decoder_attention_heads"]
    hidden, sizes = hub_config["decoder_ffn_embed_dim"], hub_config["channel_sizes"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x: Any) -> Any:
            rows, steps = x.shape[:2]
            q, k, v = (
                layer(x).reshape(rows, steps, heads, -1).transpose(1, 2)
                for layer in (self.q_proj, self.k_proj, self.v_proj)
            )
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out_proj(y.transpose(1, 2).reshape(rows, steps, width))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn = Attention()
            self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

        def forward(self, x: Any) -> Any:
            x = x + self.self_attn(self.self_attn_layer_norm(x))
            return x + self.fc2(torch.relu(self.fc1(self.final_layer_norm(x))))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(sizes[0], width)
            classes = [nn.Embedding(size, width) if size > 1 else nn.Identity() for size in sizes[1:]]
            reals = [nn.Identity() if size > 1 else nn.Linear(1, width) for size in sizes[1:]]
            self.embed_other_list, self.proj_other_list = nn.ModuleList(classes), nn.ModuleList(reals)
            self.layers = nn.ModuleList(Layer() for _ in range(hub_config["decoder_layers"]))
            self.layer_norm = nn.LayerNorm(width)
            self.project_out_dim = nn.Linear(width, sum(sizes), bias=False)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.settings = Decoder(), dict(hub_config)

        def forward(self, units: Any, *others: Any) -> Any:
            top = self.decoder
            x = top.embed_tokens(units) * math.sqrt(width)
            for one, table, line in zip(others, top.embed_other_list, top.proj_other_list, strict=True):
                x = x + line(table(one) if one.dtype == torch.long else one[..., None])
            x = x + _sinusoids(units.shape[1], width).to(x.dtype)
            for layer in top.layers:
                x = layer(x)
            return top.project_out_dim(top.layer_norm(x))

    return Model()


def _sinusoids(steps: int, width: int) -> Any:
    """fairseq's: sines, then cosines, the first step in row 2."""
    import torch

    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10_000) / (half - 1)))
    angles = torch.arange(2, steps + 2, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _activations(model: Any, inputs: Mapping[str, np.ndarray | None]) -> Arrays:
    """Every layer, the last norm, and the logits of each stream; padding stands on the right, where nobody looks."""
    import torch

    ids, config = np.asarray(inputs["ids"]), read_config(model.settings)
    dtype = next(model.parameters()).dtype
    given = [torch.tensor(ids[..., 0])]
    for k in range(1, ids.shape[-1]):
        grid = config.grid(k)
        own = np.full_like(ids[..., k], config.nothing(k)) if k in config.ignored else ids[..., k]
        given.append(torch.tensor(own) if grid is None else torch.tensor(grid.values(own)).to(dtype))
    places = {f"layer_{i + 1}": f"decoder.layers.{i}" for i in range(len(model.decoder.layers))}
    places = {"embeddings": ">decoder.layers.0", **places, "final_norm": "decoder.layer_norm"}
    found = recorded(model, {**places, "heads": "decoder.project_out_dim"}, lambda: model(*given))
    heads = found.pop("heads")
    sizes = [n if config.grid(k) is None else 1 for k, n in enumerate(config.streams)]
    for k, part in enumerate(np.split(heads, np.cumsum(sizes)[:-1], axis=-1)):
        grid = config.grid(k)
        found[f"logits_{k}"] = part if grid is None else np.asarray(grid.logits(part))
    return found
