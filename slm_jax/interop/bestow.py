"""What BESTOW trains under the names of NeMo (`CrossAttendModularAudioGPTModel`): perception and cross-attention.

`perception.{encoder, modality_adapter, proj}` are our `encoder` and `adapter`, `perception_cross_attn.xattn_decoder` is
our `listener`. The text model and its LoRA have files of their own (`interop.family_llama`, `interop.peft`): frozen
parts are not saved there. No released file could be had: names are those of the code.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.adapters.conformer import ConformerAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_parakeet import NAMES, encoder_rules, layer_rules, strided_rules
from slm_jax.interop.table import Rule, Table, below, norm, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense
from slm_jax.sequence_models.listener import ListenerConfig

PERCEPTION, LISTENER = "perception.", "perception_cross_attn."
PARTS = ("encoder", "adapter", "listener")
AT, OURS = "xattn_decoder.layers.{i}", "blocks/layers"


def load_bestow(arrays: Mapping[str, np.ndarray], model: SpeechAwareLMConfig) -> dict[str, Any]:
    """Parameters of encoder, adapter and listener from arrays under NeMo's names, float32 NumPy.

    Raises `UserError` for a model of another form, `MappingError` listing every name that has no place, every place
    left empty, every wrong shape.
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    return import_params(resolve(table(model), shapes, abstract_trained(model)), arrays.__getitem__)


def named_arrays(params: Mapping[str, Any], model: SpeechAwareLMConfig) -> Iterable[tuple[str, np.ndarray]]:
    """The same under NeMo's names."""
    return export_params(table(model), {name: params[name] for name in PARTS})


def table(model: SpeechAwareLMConfig) -> Table:
    """The names."""
    encoder, adapter, listener = parts_of(model)
    names = NAMES["nemo"]
    depth = adapter.factor.bit_length() - 1
    entered = (
        (*strided_rules(names["strided"], depth), *weights(names["map"], "striding/map", Dense(), SAME))
        if depth
        else weights("pre_encode", "enter", Dense(), SAME)
    )
    return Table(
        rules=(
            *below(encoder_rules(encoder, "nemo"), f"{PERCEPTION}encoder.", "encoder/"),
            *below((*entered, *layer_rules(names, adapter.inner.norm)), f"{PERCEPTION}modality_adapter.", "adapter/"),
            *weights(f"{PERCEPTION}proj", "adapter/map", Dense(), SAME),
            *below(listener_rules(listener), LISTENER, "listener/"),
        ),
        ignored=(r"perception\.(preprocessor|spec_augmentation)\..*", r"perception\..*\.num_batches_tracked"),
    )


def listener_rules(config: ListenerConfig) -> tuple[Rule, ...]:
    """The cross-attention: three halves of each layer, a last norm, maps where it has a width of its own."""
    maps = {"input_proj1": "words", "input_proj2": "speech", "output_proj": "out"}
    own = maps.items() if config.inner is not None else ()
    return (
        *(one for name, ours in own for one in weights(name, ours, Dense(), SAME)),
        *_attention("first", "attention", "1", "attention_norm"),
        *_attention("second", "cross_attention", "2", "cross_norm"),
        *norm(f"{AT}.layer_norm_3", f"{OURS}/mlp_norm"),
        *weights(f"{AT}.third_sub_layer.dense_in", f"{OURS}/mlp/up", Dense(), SAME),
        *weights(f"{AT}.third_sub_layer.dense_out", f"{OURS}/mlp/down", Dense(), SAME),
        *norm("xattn_decoder.final_layer_norm", "final_norm"),
    )


def _attention(name: str, target: str, number: str, normed: str) -> tuple[Rule, ...]:
    source, ours = f"{AT}.{name}_sub_layer", f"{OURS}/{target}"
    into = (weights(f"{source}.{one}_net", f"{ours}/{one}", Dense(), FLAT) for one in ("query", "key", "value"))
    return (
        *norm(f"{AT}.layer_norm_{number}", f"{OURS}/{normed}"),
        *(one for rules in into for one in rules),
        *weights(f"{source}.out_projection", f"{ours}/out", Dense(2), SAME),
    )


def parts_of(model: SpeechAwareLMConfig) -> tuple[FastConformerConfig, ConformerAdapterConfig, ListenerConfig]:
    """Encoder, adapter, listener; raises `UserError` for a model of another form."""
    found = model.encoder, model.adapter, model.listener
    kinds = (FastConformerConfig, ConformerAdapterConfig, ListenerConfig)
    for name, part, kind in zip(PARTS, found, kinds, strict=True):
        require(isinstance(part, kind), name, type(part).__name__, f"BESTOW has a {kind.__name__}")
    assert model.listener is not None  # for the type checker
    gain = model.listener.gain
    require(gain is None, "listener.gain", gain, "NeMo's has no factor")
    return model.encoder, model.adapter, model.listener


def abstract_trained(model: SpeechAwareLMConfig) -> dict[str, Any]:
    """Shapes and dtypes of what a file fills; nothing is computed."""
    encoder, adapter, listener = parts_of(model)
    key, row = jax.random.key(0), jax.ShapeDtypeStruct((1, 16_000), jnp.float32)
    words, speech = jnp.zeros((1, 2, listener.width)), _frames(listener.width)
    made = {
        "encoder": jax.eval_shape(encoder.make().init, key, row),
        "adapter": jax.eval_shape(adapter.make().init, key, _frames(encoder.width)),
        "listener": jax.eval_shape(lambda key: listener.make().init(key, words, None, speech), key),
    }
    return meta.unbox({name: shapes["params"] for name, shapes in made.items()})


def _frames(width: int) -> Frames:
    return Frames(jnp.zeros((1, 16, width)), jnp.ones((1, 16), bool))
