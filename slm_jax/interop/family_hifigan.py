"""HiFi-GAN on log-mel spectrograms, in two families that differ in their `config.json` and in what export writes.

"hifigan" is the original repository (Kong et al. 2020), with its recipe of the spectrogram and weight norm;
"speecht5_hifigan" is `SpeechT5HifiGan` of transformers (and `FastSpeech2ConformerHifiGan`, the same model), which keeps
plain weights and constants that normalise its input, and knows neither the recipe nor the lighter blocks of V3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.audio.mel import LogMelConfig
from slm_jax.core.errors import UserError
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.generator_shapes import RENAMES, UNSAID, generator_rules, read_generator, write_generator
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Table, rule

TRANSFORMERS_TYPES = ("speecht5_hifigan", "fastspeech2_conformer_hifigan")
TRANSFORMERS_RATE_HZ = {"speecht5_hifigan": 16_000, "fastspeech2_conformer_hifigan": 22_050}
"""The rate where the file is silent; FastSpeech 2's always is, its published vocoder speaks LJSpeech at 22,050 Hz."""


def is_original(hub: Hub) -> bool:
    """A generator without a `model_type` that reads mels, not units."""
    return "model_type" not in hub and {"upsample_rates", "num_mels"} <= hub.keys() and "num_embeddings" not in hub


def read_config(hub: Hub) -> MelVocoderConfig:
    """Our config of a `config.json` of either family."""
    kind = hub.get("model_type")
    if kind in TRANSFORMERS_TYPES:
        return _read_transformers(HubConfig("speecht5_hifigan", hub), TRANSFORMERS_RATE_HZ[str(kind)])
    fields = HubConfig("hifigan", hub)
    generator, mels = read_generator(fields, weight_norm=True), fields.number("num_mels", 80)
    n_fft = fields.number("n_fft", 1024)
    hop = fields.number("hop_size", generator.hop)
    fields.unless(hop == generator.hop, "hop_size", hop, f"the upsample_rates make {generator.hop} samples of a frame")
    rate = fields.number("sampling_rate", 22_050)
    recipe = LogMelConfig(
        rate_hz=rate,
        n_fft=n_fft,
        window_length=fields.number("win_size", n_fft),
        hop=generator.hop,
        mels=mels,
        low_hz=fields.number("fmin", 0.0),
        high_hz=fields.number("fmax", rate / 2),
        padding="hop",
    )
    return fields.make(MelVocoderConfig, mels=mels, rate_hz=rate, features=recipe, generator=generator)


def write_original(config: MelVocoderConfig) -> dict[str, Any]:
    """The `config.json` of the original repository, without its settings of training."""
    recipe = config.features
    if recipe is None:
        raise UserError("features is None: hifigan's config.json tells how the spectrogram is made")
    hub = {
        "resblock": config.generator.resblock,
        **write_generator(config.generator),
        "num_mels": config.mels,
        "sampling_rate": config.rate_hz,
        "hop_size": config.hop,
        "n_fft": recipe.n_fft,
        "win_size": recipe.window_length,
        "fmin": recipe.low_hz,
        "fmax": recipe.high_hz,
    }
    require_said("hifigan", config, read_config(hub), UNSAID)
    return hub


def write_transformers(config: MelVocoderConfig) -> dict[str, Any]:
    """The `config.json` of `SpeechT5HifiGan`."""
    hub = {
        "model_type": "speecht5_hifigan",
        "architectures": ["SpeechT5HifiGan"],
        "model_in_dim": config.mels,
        "sampling_rate": config.rate_hz,
        "normalize_before": config.normalise,
        "leaky_relu_slope": 0.1,
        **write_generator(config.generator),
    }
    # the recipe belongs to who makes the spectrograms: transformers keeps it with the text-to-speech model
    require_said("speecht5_hifigan", config, read_config(hub), (*UNSAID, "features"))
    return hub


def table(config: MelVocoderConfig, spelling: str = "original") -> Table:
    """The names of one spelling."""
    constants = (rule("mean", "mean"), rule("scale", "scale")) if config.normalise else ()
    return Table(
        rules=(*constants, *generator_rules(config.generator, spelling)),
        # transformers writes the constants also where `normalize_before` leaves them unused
        ignored=() if config.normalise else ("mean", "scale"),
        renames=((r"^(module|generator)\.", ""), *RENAMES),
    )


def boxed_params(config: MelVocoderConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    frames = jax.ShapeDtypeStruct((1, 2, config.mels), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), frames)["params"]


def abstract_params(config: MelVocoderConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _read_transformers(fields: HubConfig, rate_hz: int) -> MelVocoderConfig:
    return fields.make(
        MelVocoderConfig,
        mels=fields.number("model_in_dim", 80),
        rate_hz=fields.number("sampling_rate", rate_hz),
        features=None,
        normalise=fields.flag("normalize_before", True),
        generator=read_generator(fields, weight_norm=False),
    )


HIFIGAN = Family(
    name="hifigan",
    config_type=MelVocoderConfig,
    spellings=("original", "transformers"),
    matches=is_original,
    read_config=read_config,
    write_config=write_original,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
SPEECHT5_HIFIGAN = Family(
    name="speecht5_hifigan",
    config_type=MelVocoderConfig,
    spellings=("transformers", "original"),
    matches=is_type(*TRANSFORMERS_TYPES),
    read_config=read_config,
    write_config=write_transformers,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
