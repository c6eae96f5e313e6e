"""PyTorch at work for `bench`: codes of several books, side by side with delays or one after the other in one line."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_moshi import MOSHI
from slm_jax.interop.moshi_config import kyutai_settings
from slm_jax.interop.reference import Arrays, config_json, draw_weights, state_arrays
from slm_jax.interop.reference_bench import TorchJob, Way, as_array, as_tensor, counted, drawn_model, inference, placed
from slm_jax.interop.reference_moshi import CODEC
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


def moshi_delays(books: int) -> tuple[int, ...]:
    """Frames by which text, own books and the user's books are late: the acoustic ones by one."""
    return (0, *((0, *[1] * (books - 1)) * 2))


def aligned(ids: np.ndarray, delays: Sequence[int]) -> np.ndarray:
    """Ids [S, K] of steps as those of frames: nobody is late any more."""
    frames = len(ids) - max(delays)
    return np.stack([ids[delays[k] : frames + delays[k], k] for k in range(ids.shape[1])], axis=1)


def framewise(
    hub_config: Mapping[str, Any], heard: np.ndarray, steps: int, compiled: bool, dtype: str = "float32"
) -> TorchJob:
    """The likeliest text and codes `[frames, 1 + K]` of Moshi's two transformers, with caches; `heard` [steps, K]: the
    user's codes. Both of transformers' parts in a loop, and Kyutai's own streaming where their package is installed.
    """
    import torch
    import transformers

    model, hub, weights = drawn_moshi(hub_config)
    model, books = placed(model, dtype), model.config.num_codebooks
    user, delays = as_tensor(heard), moshi_delays(books)
    empty = [model.config.vocab_size, *[model.config.audio_vocab_size] * (2 * books)]

    def loop(temporal: Callable, depth: Callable) -> Arrays:
        cache, current, written = transformers.DynamicCache(), torch.tensor(empty, device=user.device), []
        for step in range(steps):
            vectors = model.decoder.model.embed_tokens(current[:1])[None]
            vectors = vectors + sum(model.embed_tokens[k](current[k + 1]) for k in range(2 * books))
            hidden = temporal(inputs_embeds=vectors, past_key_values=cache, use_cache=True).last_hidden_state
            chosen, kept = [model.decoder.lm_head(hidden)[0, -1].argmax()], transformers.DynamicCache()
            for _ in range(books):
                given = chosen[-1].reshape(1, 1)
                out = depth(input_ids=given, last_hidden_state=hidden, past_key_values=kept, use_cache=True)
                chosen.append(out.logits[0, -1].argmax())
            late = [user[step - delay, k] for k, delay in enumerate(delays[1 + books :])]
            current = torch.stack([*chosen, *late])
            for k, delay in enumerate(delays):
                if step < delay:
                    current[k] = empty[k]
            written.append(current[: 1 + books])
        return {"ids": aligned(as_array(torch.stack(written)), delays)}

    parts = model.decoder.model, model.depth_decoder
    ways: dict[str, Way] = {"loop, DynamicCache": partial(loop, *parts)}
    if find_spec("moshi") is not None:
        ways["Kyutai's LMGen"] = partial(streamed, own_model(hub, weights, dtype), user, delays)
    if compiled:
        ways["loop, DynamicCache, torch.compile"] = partial(loop, *map(torch.compile, parts))
    flops = counted(ways["loop, DynamicCache"])
    return TorchJob("moshi", "transformers", hub, weights, {n: inference(w) for n, w in ways.items()}, flops)


def drawn_moshi(hub_config: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Arrays]:
    """Moshi of this shape as transformers has it, its config as JSON, and its weights without a codec's."""
    import transformers

    config = {**hub_config, "depth_decoder_config": dict(hub_config["depth_decoder_config"])}
    kind = transformers.MoshiForConditionalGeneration
    model = draw_weights(drawn_model(kind, transformers.MoshiConfig(**config, audio_encoder_config=dict(CODEC))), 0)
    weights = {name: value for name, value in state_arrays(model).items() if not name.startswith("audio_")}
    return model, config_json(model), weights


def own_model(hub: Mapping[str, Any], weights: Arrays, dtype: str) -> Any:
    """The same as Kyutai's package has it, eager: on a CPU it compiles for longer than it then gains."""
    os.environ.setdefault("NO_TORCH_COMPILE", "1")
    import torch
    from moshi.models.lm import LMModel

    ours = MOSHI.read_config(hub)
    shapes = {name: value.shape for name, value in weights.items()}
    plan = resolve(MOSHI.table(ours, "transformers"), shapes, MOSHI.abstract(ours))
    params = import_params(plan, weights.__getitem__)
    theirs = LMModel(**kyutai_settings(ours))
    named = {n: torch.tensor(v) for n, v in export_params(MOSHI.table(ours, "kyutai"), params)}
    theirs.load_state_dict(named)
    return placed(theirs.eval(), dtype)


def streamed(model: Any, user: Any, delays: Sequence[int]) -> Arrays:
    """What the package streams, greedily. Its first call hears nobody: it reads what begins every row."""
    from moshi.models.lm import LMGen

    generator, made = LMGen(model, use_sampling=False), []
    with generator.streaming(1):
        for frame in [user[0], *user]:
            out = generator.step(frame[None, :, None])
            if out is not None:
                made.append(as_array(out)[0, :, 0])
    return {"ids": np.stack(made)[: len(user) - max(delays)]}


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
