"""What stages share that learn from segments of waveforms: segments of whole frames, and those they are measured on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.data.channels import ChannelsApart
from slm_jax.data.examples.waveform_segments import WaveformSegmentConfig
from slm_jax.data.shapes import Shapes, stacked_shapes
from slm_jax.training.stages import StageContext


def whole_frames(seconds: float, rate_hz: int, frame: int) -> int:
    """Samples of about `seconds`, a multiple of the `frame` samples of a frame, one frame at least."""
    return frame * max(1, round(seconds * rate_hz / frame))


def segment_shapes(example: WaveformSegmentConfig, rows: int) -> Shapes:
    """The arrays of a batch of such segments."""
    item = {"samples": np.zeros(example.samples, np.float32)}
    shapes = stacked_shapes(example.make()(item, np.random.default_rng(0)), rows)
    return shapes | {"example": jax.ShapeDtypeStruct((rows,), jnp.int32)}


def channels_apart(context: StageContext, split: str) -> Any:
    """The recordings of a split; of a corpus of two channels each channel as a recording of its own."""
    source = context.source(split)
    return source if context.corpus.channels == 1 else ChannelsApart(source, context.corpus.channels)


def held_out_segments(
    context: StageContext, example: WaveformSegmentConfig, count: int, stage: str
) -> dict[str, Any] | None:
    """A batch of at most `count` segments of the dev split, unchanged, the same each time; None where it is empty."""
    dev, make = channels_apart(context, "dev"), example.replace(channel=None).make()
    if not len(dev):
        context.say_unmeasured(stage)
        return None
    rows = [make(dev[i], np.random.default_rng(i)) for i in range(min(count, len(dev)))]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}
