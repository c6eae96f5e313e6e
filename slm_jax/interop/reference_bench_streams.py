"""PyTorch at work for `bench`: codes of several books, side by side with delays or one after the other in one line."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from slm_jax.interop.reference import Arrays, config_json, draw_weights, state_arrays
from slm_jax.interop.reference_bench import TorchJob, Way, as_array, as_tensor, counted, drawn_model, inference, placed
from slm_jax.interop.reference_t5_stack import stack_with_head, t5_config


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


def in_line(
    hub_config: Mapping[str, Any], prompt: np.ndarray, new: int, compiled: bool, dtype: str = "float32"
) -> TorchJob:
    """The `new` likeliest ids after `prompt` [B, L] by T5's decoder that listens to nothing, with a cache.

    There is no `generate` to time: `T5Stack` has no head, and that of ours reads the last step only. Weights are drawn
    anew: with those that the class draws, the likeliest ids soon alternate between two, whatever is computed.
    """
    import torch
    import transformers

    model = draw_weights(drawn_model(stack_with_head(), t5_config(hub_config)), seed=0)
    weights = state_arrays(model)
    model, given = placed(model, dtype), as_tensor(prompt)

    def loop(make_cache: Callable[[], Any], call: Callable = model) -> Arrays:
        cache, current, written = make_cache(), given, []
        for _ in range(new):
            current = call(current, last_only=True, past_key_values=cache, use_cache=True).argmax(-1)
            written.append(current)
        return {"ids": as_array(torch.cat(written, 1))}

    static = partial(transformers.StaticCache, config=model.config, max_cache_len=given.shape[1] + new)
    ways: dict[str, Way] = {
        "loop, DynamicCache": partial(loop, transformers.DynamicCache),
        "loop, StaticCache": partial(loop, static),
    }
    if compiled:
        ways["loop, StaticCache, torch.compile"] = partial(loop, static, torch.compile(model))
    flops = counted(ways["loop, DynamicCache"])
    timed = {name: inference(way) for name, way in ways.items()}
    return TorchJob("t5_stack", "transformers", dict(hub_config), weights, timed, flops)
