"""PyTorch at work for `bench`: codes of several books, written step by step with delays."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from slm_jax.interop.reference import Arrays, config_json, state_arrays
from slm_jax.interop.reference_bench import TorchJob, Way, as_array, as_tensor, counted, drawn_model, inference, placed


def delayed(
    hub_config: Mapping[str, Any], heard: np.ndarray, steps: int, compiled: bool, dtype: str = "float32"
) -> TorchJob:
    """The likeliest codes `[1, steps, K]` of MusicGen's decoder, book k beginning k steps late, with a cache.

    `heard` [1, C, D]: what cross-attention listens to. The class' own `generate` is no way: with a cache it mixes what
    is heard with what is written.
    """
    import torch
    import transformers

    model = drawn_model(transformers.MusicgenForCausalLM, transformers.MusicgenDecoderConfig(**hub_config))
    hub, weights = config_json(model), state_arrays(model)
    model, context = placed(model, dtype), as_tensor(heard, dtype)
    books, empty = model.config.num_codebooks, model.config.pad_token_id
    late, held = torch.arange(books, device=context.device)[:, None], transformers.EncoderDecoderCache

    def loop(make_cache: Callable[[], Any], call: Callable = model) -> Arrays:
        cache, current, written = make_cache(), torch.full((books, 1), empty, device=context.device), []
        for step in range(steps):
            out = call(input_ids=current, encoder_hidden_states=context, past_key_values=cache, use_cache=True)
            chosen = out.logits[:, -1].argmax(-1, keepdim=True)
            current = torch.where(late > step, torch.full_like(chosen, empty), chosen)
            written.append(current)
        return {"codes": as_array(torch.cat(written, 1).T[None])}

    def moving() -> Any:
        return held(transformers.DynamicCache(), transformers.DynamicCache())

    def fixed() -> Any:
        static = transformers.StaticCache(config=model.config, max_cache_len=steps)
        return held(static, transformers.DynamicCache())

    ways: dict[str, Way] = {"loop, DynamicCache": partial(loop, moving), "loop, StaticCache": partial(loop, fixed)}
    if compiled:
        ways["loop, DynamicCache, torch.compile"] = partial(loop, moving, torch.compile(model))
    flops = counted(ways["loop, DynamicCache"])
    return TorchJob("musicgen_decoder", "transformers", hub, weights, {n: inference(w) for n, w in ways.items()}, flops)
