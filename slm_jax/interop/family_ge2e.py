"""GE2E, the speaker encoder of the Resemblyzer package: its config and the names of its weights.

A checkpoint is one file of `torch.save` with `model_state`. The settings, which the package keeps in its code, belong
into a `config.json` beside it under their names there, with `"model_type": "ge2e"`. Scale and shift of the similarities
in its loss are left aside.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.core.types import Frames
from slm_jax.encoders.speaker import HOP, RATE_HZ, WINDOW, SpeakerEncoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Table, lstm, weights
from slm_jax.interop.transforms import SAME, Dense

FRONT_END = {
    "sampling_rate": RATE_HZ,
    "mel_window_length": WINDOW * 1000 // RATE_HZ,
    "mel_window_step": HOP * 1000 // RATE_HZ,
}
"""Settings that have one value."""
NUMBERS = {
    "mels": "mel_n_channels",
    "width": "model_hidden_size",
    "layers": "model_num_layers",
    "embedding": "model_embedding_size",
    "frames": "partials_n_frames",
    "stretches_per_s": "rate",
    "coverage": "min_coverage",
    "loudness_dbfs": "audio_norm_target_dBFS",
}
"""Our field -> theirs."""
OF_THE_LOSS = (r"similarity_(weight|bias)",)


def read_config(hub: Hub) -> SpeakerEncoderConfig:
    """Our config; settings that are absent have the released values."""
    fields, released = (
        HubConfig("ge2e", hub, {name: (value,) for name, value in FRONT_END.items()}),
        SpeakerEncoderConfig(),
    )
    read = {ours: fields.number(theirs, getattr(released, ours)) for ours, theirs in NUMBERS.items()}
    return fields.make(SpeakerEncoderConfig, **read)


def write_config(config: SpeakerEncoderConfig) -> dict[str, Any]:
    """The `config.json`."""
    hub = {"model_type": "ge2e", **FRONT_END, **{theirs: getattr(config, ours) for ours, theirs in NUMBERS.items()}}
    require_said("ge2e", config, read_config(hub))
    return hub


def table(config: SpeakerEncoderConfig, spelling: str = "original") -> Table:
    """The names of the released checkpoint."""
    return Table(
        rules=(*lstm("lstm", "lstm", config.layers, Dense()), *weights("linear", "projection", Dense(), SAME)),
        ignored=OF_THE_LOSS,
    )


def boxed_params(config: SpeakerEncoderConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    one_frame = Frames(jnp.zeros((1, 1, config.mels)), jnp.ones((1, 1), bool))
    return jax.eval_shape(config.make().init, jax.random.key(0), one_frame)["params"]


def abstract_params(config: SpeakerEncoderConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


GE2E = Family(
    name="ge2e",
    config_type=SpeakerEncoderConfig,
    spellings=("original",),
    matches=is_type("ge2e"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
