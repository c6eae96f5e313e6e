"""wav2vec 2.0, HuBERT and WavLM with a head over classes: `Wav2Vec2ForSequenceClassification` and its like.

A folder is one of these where its architecture says so; its encoder alone is the part `encoder` (`PartSource.take`).
SpiRit-LM's `Wav2Vec2StyleEncoder` is one whose windows are 50 frames; another number is told by `pool_size`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.interop.family import Family
from slm_jax.interop.family_ssl import CLASSES, reader, writer
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.ssl_names import table as encoder_table
from slm_jax.interop.table import Table, below, weights
from slm_jax.interop.transforms import SAME, Dense

STYLE_ENCODER, STYLE_WINDOW = "Wav2Vec2StyleEncoder", 50
OWN = {"pool_size", "use_weighted_layer_sum"}
"""Fields of the head that the reader of the encoder does not know or does not look at."""
KINDS = tuple(CLASSES)


def architectures(hub: Hub) -> tuple[str, ...]:
    """What a `config.json` says its weights are of."""
    return tuple(map(str, hub.get("architectures") or ()))


def is_classifier(kind: str, hub: Hub) -> bool:
    """Is this `config.json` that of a classifier around an encoder of this kind?"""
    named = any(name.endswith("ForSequenceClassification") or name == STYLE_ENCODER for name in architectures(hub))
    return named and hub.get("model_type") == kind


def read_config(kind: str, hub: Hub) -> SSLClassifierConfig:
    """Our config of a `config.json`."""
    fields = HubConfig(f"{kind}_classifier", hub)
    fields.read |= set(hub)  # the encoder's reader names those that nobody knows
    encoder = reader(kind)({name: value for name, value in hub.items() if name not in OWN})
    mixed = fields.flag("use_weighted_layer_sum", False)
    fields.unless(not mixed, "use_weighted_layer_sum", mixed, "only the last layer is supported")
    labels = fields.get("id2label")
    window = fields.number("pool_size", STYLE_WINDOW if STYLE_ENCODER in architectures(hub) else 0)
    return fields.make(
        SSLClassifierConfig,
        encoder=encoder,
        classes=len(labels) if labels else fields.number("num_labels", 2),
        projection=fields.number("classifier_proj_size", 256),
        window=window or None,
    )


def write_config(kind: str, config: SSLClassifierConfig) -> dict[str, Any]:
    """The `config.json`; raises `UserError` for an encoder that this kind can't say."""
    hub = {
        **writer(kind)(config.encoder),
        "architectures": [f"{CLASSES[kind]}ForSequenceClassification"],
        "classifier_proj_size": config.projection,
        "use_weighted_layer_sum": False,
        "id2label": {str(place): f"LABEL_{place}" for place in range(config.classes)},
        "label2id": {f"LABEL_{place}": place for place in range(config.classes)},
    }
    hub |= {} if config.window is None else {"pool_size": config.window}
    unsaid = ("encoder",)  # its own writer has looked at it
    require_said(f"{kind}_classifier", config, read_config(kind, hub), unsaid)
    return hub


def table(kind: str, config: SSLClassifierConfig, spelling: str = "transformers") -> Table:
    """The names of transformers, those of the encoder behind the name of its kind."""
    inner = encoder_table(config.encoder, spelling)
    stripped = rf"^({'|'.join(KINDS)})\."
    return Table(
        rules=(
            *below(inner.rules, f"{kind}.", "encoder/"),
            *weights("projector", "projector", Dense(), SAME),
            *weights("classifier", "classifier", Dense(), SAME),
        ),
        # SpiRit-LM's remembers its device by a buffer of one number
        ignored=(r"_float_tensor",),
        tied={f"{kind}.{copy}": f"{kind}.{first}" for copy, first in inner.tied.items()},
        renames=tuple(one for one in inner.renames if not re.fullmatch(re.escape(one[0]), stripped)),
    )


def boxed_params(config: SSLClassifierConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    samples = 1
    while config.encoder.frame_count(samples) < 1:  # whatever the front end is
        samples *= 2
    row = jax.ShapeDtypeStruct((1, samples), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), row)["params"]


def abstract_params(config: SSLClassifierConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _family(kind: str) -> Family:
    matches: Callable[[Hub], bool] = partial(is_classifier, kind)
    return Family(
        name=f"{kind}_classifier",
        config_type=SSLClassifierConfig,
        spellings=("transformers",),
        matches=matches,
        read_config=partial(read_config, kind),
        write_config=partial(write_config, kind),
        table=partial(table, kind),
        abstract=abstract_params,
        boxed=boxed_params,
        side_files=("preprocessor_config",),
    )


SSL_CLASSIFIERS = tuple(_family(kind) for kind in KINDS)
