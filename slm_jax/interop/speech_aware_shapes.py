"""What families of speech-aware text LMs share: abstract parameters, and the file that says what is heard."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.decoder_shapes import plain
from slm_jax.interop.family_whisper import FEATURES
from slm_jax.interop.hub_config import HubConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig


def abstract_params(config: SpeechAwareLMConfig) -> Any:
    """Shapes and dtypes of the parameters; nothing is computed."""
    return meta.unbox(boxed_params(config))


def boxed_params(config: SpeechAwareLMConfig) -> Any:
    """`abstract_params` in the boxes that hold the logical axes."""
    samples = jax.ShapeDtypeStruct((1, 1, 16_000), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    real, mask = jax.ShapeDtypeStruct(samples.shape, jnp.bool_), jax.ShapeDtypeStruct(ids.shape, jnp.bool_)
    return jax.eval_shape(config.make().init, jax.random.key(0), samples, real, ids, ids, mask)["params"]


def plainest(config: SpeechAwareLMConfig) -> SpeechAwareLMConfig:
    """The same model with what is left to a default in its language model left to it."""
    return config.replace(lm=plain(config.lm)) if isinstance(config.lm, DecoderConfig) else config


def unsaid(config: SpeechAwareLMConfig) -> tuple[str, ...]:
    """What a `config.json` need not say.

    How the parts run, rates that only training has, a stand-in that nobody named, that ours has no bound on positions.
    """
    running = r"(encoders\.0|adapter|adapter\.parts\.\d|lm)\.(unroll|remat|dtype)"
    named = ["speech_id"] if config.speech_id is None else []
    bound = ["lm.max_positions"] if config.max_positions is None else []
    return (running, r"encoders\.0\.masks", r"lm\.(activation_)?dropout", *named, *bound)


def written_features(encoder: WhisperEncoderConfig) -> dict[str, Any]:
    """The `preprocessor_config.json` of what an encoder of Whisper's form hears."""
    seconds = encoder.window / FEATURES["sampling_rate"]
    chunk = int(seconds) if seconds.is_integer() else seconds  # transformers multiplies it up to samples
    return {**FEATURES, "feature_size": encoder.mel.mels, "chunk_length": chunk}


def check_features(fields: HubConfig, encoder: WhisperEncoderConfig) -> None:
    """Note a fault where the file beside a config says what we do not compute; what else it says is left aside."""
    given = fields.get("preprocessor_config", {})
    for name, value in written_features(encoder).items():
        found = given.get(name, value)
        fields.unless(found == value, f"preprocessor_config.{name}", found, f"only {value!r} is supported")
