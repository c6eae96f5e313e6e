"""Passes over a corpus, on all devices of a host: MFCC, a layer of an encoder that a stage trained, or F0."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from slm_jax.assemblies.phonetic_tokenizer import EncoderFeaturesConfig, MFCCFeaturesConfig
from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.data.joined import Subset
from slm_jax.data.lengths import source_lengths
from slm_jax.data.passes import finite_batches, one_behind
from slm_jax.data.progress import tracked
from slm_jax.data.shares import this_host
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import batch_sharding, replicated
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageContext

ROWS = 16
"""Utterances that are encoded at once."""
Features = MFCCFeaturesConfig | EncoderFeaturesConfig


@dataclasses.dataclass(frozen=True)
class Clustered:
    """What a stage clusters into units, `name` in words, and how its frames are treated before."""

    name: str
    features: EncoderFeaturesConfig
    params: Any
    kmeans: KMeansConfig
    postprocess: PostprocessConfig


def layer_features(folder: StageFolder, layer: int) -> tuple[EncoderFeaturesConfig, Any]:
    """Features of a layer of the encoder that a finished stage trained, and the encoder's parameters."""
    stage, variables = trained(folder)
    model, part = stage.model_of(folder)
    return EncoderFeaturesConfig(encoder=speech_encoder(model, folder.name), layer=layer), variables["params"][part]


def speech_encoder(model: Config, stage: str) -> SSLEncoderConfig | W2VBERTConfig | WhisperEncoderConfig:
    """`model`, when it is an encoder of speech; raises `UserError` that names the stage otherwise."""
    known = SSLEncoderConfig | W2VBERTConfig | WhisperEncoderConfig
    require(isinstance(model, known), "stage", stage, "it did not train a speech encoder")
    assert isinstance(model, known)  # for the type checker
    return model


def thinned(source: Any, features: Features, frames: int) -> Subset:
    """Every n-th utterance of `source`, so that about `frames` frames are left; all of a smaller one."""
    return thinned_frames(source, features, frames)[0]


def thinned_frames(source: Any, features: Features, frames: int) -> tuple[Subset, int]:
    """What `thinned` leaves, and how many frames that has."""
    counts = np.asarray(features.frame_count(source_lengths(source, "samples")))
    every = max(1, round(int(counts.sum()) / frames))
    return Subset(source, range(0, len(source), every)), int(counts[::every].sum())


def extracted(
    features: Features, params: Any, source: Any, context: StageContext, name: str, host: int = 0, hosts: int = 1
) -> Iterator[tuple[dict[str, Any], Frames]]:
    """Batches of a pass over one host's share of `source`, with their features.

    A batch has `id`, `index` and `valid` of each row.
    """
    extract = partial(compiled(features), jax.device_put(params, replicated(row_mesh())))
    for rows, frames in spread(extract, source, context, name, ("id",), host, hosts):
        kept = {name: rows[name] for name in ("id", "index", "valid")}
        yield kept, Frames(frames.values, frames.mask & rows["valid"][:, None])


def f0_tracks(
    pitch: PitchConfig, source: Any, context: StageContext, name: str, fields: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any], Float[np.ndarray, "P"]]]:
    """Place, `fields` and F0 (Hz per `pitch.hop_s`, 0 where unvoiced) of every utterance of this host's share."""
    batches = spread(jax.jit(pitch.make()), source, context, name, fields, **this_host())
    for rows, (f0_hz, _) in one_behind(batches):
        found, counts = np.asarray(f0_hz), pitch_values(pitch, rows["mask"].sum(1))
        for i in np.flatnonzero(rows["valid"]):
            yield int(rows["index"][i]), {field: rows[field][i] for field in fields}, found[i, : counts[i]]


def pitch_values(pitch: PitchConfig, samples: Any) -> Any:
    """How many F0 values so many samples have (integer or integer array)."""
    return samples // round(pitch.hop_s * pitch.rate_hz)


def spread(
    function: Callable[[jax.Array, jax.Array], Any],
    source: Any,
    context: StageContext,
    name: str,
    fields: Sequence[str],
    host: int = 0,
    hosts: int = 1,
    lengths: tuple[int, ...] | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Batches of a pass over one host's share of `source` and what `function(samples, mask)` makes of each.

    Rows are spread over the devices of this host. `lengths`: of the batches; None: those of the corpus.
    """
    place = batch_sharding(row_mesh())
    batches = finite_batches(source, lengths or context.lengths, ROWS, fields, host=host, hosts=hosts)
    for rows in tracked(batches, len(range(host, len(source), hosts)), name, context.progress):
        yield rows, function(*jax.device_put((rows["samples"], rows["mask"]), place))


@lru_cache(maxsize=8)
def compiled(features: Features) -> Callable[..., Frames]:
    """`features.extract`, compiled once for every shape however many passes there are."""
    return jax.jit(features.extract)


def row_mesh() -> Mesh:
    """As many devices of this host as the rows of a batch divide over."""
    devices = jax.local_devices()
    return MeshConfig().make(devices[: math.gcd(ROWS, len(devices))])
