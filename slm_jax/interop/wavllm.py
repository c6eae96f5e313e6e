"""The released file of WavLLM (arXiv 2404.00656), `final.pt`: fairseq's, with the names of its own code.

It holds what was trained and, where these were saved, the frozen parts: Whisper's encoder, WavLM, and LLaMA in Meta's
layout. There the two channels that are rotated together lie side by side; ours lie half a head apart, and so do those
of LoRA's B for queries and keys, which therefore have an adapter of their own (`ROTATED`): the prompt's factors are one
vector for all projections, in Meta's order. LoRA's matrices are stored as `[in, r]` and `[r, out]`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.adapters.streams import StreamsConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.encoders.layer_states import LayerStatesConfig
from slm_jax.interop import family_llama, family_ssl, ssl_names
from slm_jax.interop.engine import export_params
from slm_jax.interop.family_whisper import boxed_encoder, encoder_rules
from slm_jax.interop.readers import open_weights
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.trained_parts import abstract_frames, abstract_lora, as_tensors, load_named
from slm_jax.interop.transforms import SAME, Conv, Dense, Rotary, Turned
from slm_jax.nn.lora import LoRAConfig

LLAMA, WHISPER, WAVLM = "gpt_model.model_llama.", "audio_encoder.model.", "wavlm_encoder.model."
PARTS = {"encoder": WHISPER, "encoder_1": WAVLM, "lm": f"{LLAMA}tok_embeddings."}
"""Frozen part -> how names of a file that holds it begin."""
ROTATED, PLAIN = "rotated", "plain"
"""Adapters of queries and keys, and of values and outputs."""
PROJECTIONS = {"wq": "query", "wk": "key", "wv": "value", "wo": "out"}
LAYER = "lora/lm/blocks/layers/attention"


def adapters(rank: int = 32, dropout: float = 0.1) -> tuple[LoRAConfig, LoRAConfig]:
    """LoRA as a released file has it, in two adapters."""
    shared: dict[str, Any] = {"rank": rank, "alpha": float(rank), "dropout": dropout}
    return (
        LoRAConfig(targets="lm/.*/attention/(query|key)", name=ROTATED, **shared),
        LoRAConfig(targets="lm/.*/attention/(value|out)", name=PLAIN, **shared),
    )


def load_wavllm(path: str | Path, model: SpeechAwareLMConfig, lora: tuple[LoRAConfig, ...]) -> dict[str, Any]:
    """The variables in a released file, float32 NumPy arrays: `params` and `lora`, of frozen parts those that it holds.

    `model` has a `prompt_scale` whose `paired` is `ROTATED`; `lora`: `adapters()`. Raises `UserError` for a model of
    another form, `MappingError` listing everything that does not fit.
    """
    held = held_parts(open_weights(path).shapes)
    return load_named(path, table(model, held), abstract(model, lora, held), "WavLLM")


def save_wavllm(path: str | Path, variables: Any, model: SpeechAwareLMConfig) -> Path:
    """Write the variables as the original code loads them, with the frozen parts that are there; needs PyTorch."""
    import torch

    torch.save({"model": as_tensors(named_arrays(variables, model))}, path)
    return Path(path)


def named_arrays(variables: Any, model: SpeechAwareLMConfig) -> Iterable[tuple[str, np.ndarray]]:
    """The variables under their released names."""
    held = tuple(name for name in PARTS if name in variables["params"])
    return export_params(table(model, held), {name: variables[name] for name in ("params", "lora")})


def held_parts(names: Iterable[str]) -> tuple[str, ...]:
    """Which frozen parts a file with these names holds."""
    names = tuple(names)
    return tuple(part for part, begins in PARTS.items() if any(name.startswith(begins) for name in names))


def table(model: SpeechAwareLMConfig, held: tuple[str, ...]) -> Table:
    """The names of a released file that holds these frozen parts."""
    frozen = _frozen_rules(model)
    return Table(
        rules=(
            *_stream("audio_encoder", "params/join/first"),
            *_stream("wavlm_encoder", "params/join/second/parts_1"),
            rule("wavlm_encoder.output_weights", "params/join/second/parts_0/weights"),
            *weights("wavlm_audio_proj", "params/adapter/map", Dense(), SAME),
            *weights(f"{LLAMA}scale_fc_1", "params/prompt_scale/down", Dense(), SAME),
            *weights(f"{LLAMA}scale_fc_2", "params/prompt_scale/up", Dense(), SAME),
            *weights(f"{LLAMA}scale_weight_attention", "params/prompt_scale/attention", Dense(), SAME),
            *(one for theirs, ours in PROJECTIONS.items() for one in _lora(theirs, ours)),
            *(one for part in held for one in frozen[part]),
        ),
        ignored=(r"audio_proj\.(weight|bias)", r".*\.rope\.freqs", r".*\.freqs_cis"),
        renames=ssl_names.RENAMES["transformers"][1:],
    )


def abstract(model: SpeechAwareLMConfig, lora: tuple[LoRAConfig, ...], held: tuple[str, ...]) -> dict[str, Any]:
    """Shapes and dtypes of all that such a file fills; nothing is computed."""
    join, scale, second = model.join, model.prompt_scale, model.encoders[-1]
    whole = isinstance(join, StreamsConfig) and isinstance(second, LayerStatesConfig)
    require(whole, "join", type(join).__name__, "WavLLM has an adapter for each of two encoders, the second by layers")
    assert isinstance(join, StreamsConfig) and isinstance(second, LayerStatesConfig)  # for the type checker
    paired = None if scale is None else scale.paired
    require(paired == ROTATED, "prompt_scale.paired", paired, f"WavLLM has a prompt adapter for {ROTATED!r} and others")
    words = Frames(jnp.zeros((1, 1, model.width)), jnp.ones((1, 1), bool))
    asked = meta.unbox(jax.eval_shape(scale.make().init, jax.random.key(0), words)["params"])  # type: ignore[union-attr]
    trained = {
        "join": abstract_frames(join, *(encoder.width for encoder in model.encoders)),
        "adapter": abstract_frames(model.adapter, join.width),
        "prompt_scale": asked,
    }
    shapes = {
        "encoder": lambda: meta.unbox(boxed_encoder(model.encoder)),
        "encoder_1": lambda: family_ssl.abstract_params(second.encoder),
        "lm": lambda: family_llama.abstract_params(model.lm),
    }
    return {"params": trained | {part: shapes[part]() for part in held}, "lora": abstract_lora(model, lora)}


def _frozen_rules(model: SpeechAwareLMConfig) -> Mapping[str, tuple[Rule, ...]]:
    wavlm = ssl_names.table(model.encoders[-1].encoder, "transformers")
    return {
        "encoder": encoder_rules(WHISPER.rstrip("."), "params/encoder", "transformers"),
        "encoder_1": below(wavlm.rules, WAVLM, "params/encoder_1/"),
        "lm": below(family_llama.table(model.lm, "original").rules, LLAMA, "params/lm/"),
    }


def _stream(source: str, target: str) -> tuple[Rule, ...]:
    """Two convolutions, the bottleneck, the map of one encoder."""
    return (
        *(
            one
            for place in range(2)
            for one in weights(f"{source}.subsample.conv_layers.{place}", f"{target}/conv_{place}", Conv(), SAME)
        ),
        *weights(f"{source}.adapter.down_layer", f"{target}/bottleneck/up", Dense(), SAME),
        *weights(f"{source}.adapter.up_layer", f"{target}/bottleneck/down", Dense(), SAME),
        *norm(f"{source}.adapter.layer_norm", f"{target}/bottleneck_norm"),
        *weights(f"{source}.projector", f"{target}/map", Dense(), SAME),
    )


def _lora(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A and B of one projection of all layers."""
    at = f"{LLAMA}layers.{{i}}.attention.{theirs}_lora"
    rotated = ours in ("query", "key")
    place = f"{LAYER}/{ours}/{ROTATED if rotated else PLAIN}"
    inputs = 2 if ours == "out" else 1
    b = Turned(Rotary(Dense())) if rotated else Dense(transposed=False)
    return rule(f"{at}_A", f"{place}/a", Dense(inputs, transposed=False)), rule(f"{at}_B", f"{place}/b", b)
