"""Crops of speech with frame labels and mask spans: HuBERT pre-training."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from slm_jax.audio.rates import SSL_CONVS, conv_frames, receptive_field
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.data.passes import float_samples


class MaskedSpeechConfig(Config):
    """A crop of `crop_samples`, cut on the frame grid of an encoder so that labels stay in step with frames.

    `kernels_and_strides` tells the grid: frame t sees `receptive field` samples from sample t * hop. `mask_share` is
    fairseq's `mask_prob`: spans are drawn until they would cover that share of the real frames if none overlapped
    (.8 in HuBERT; .65 in wav2vec 2.0, whose paper calls it starts with p = .065); since they overlap, less is masked.
    `labels_per_frame`: labels come that many times as often as frames, and the first of each frame's is taken (an
    encoder at 25 Hz on labels at 50 Hz).
    """

    crop_samples: int
    kernels_and_strides: tuple[tuple[int, int], ...] = SSL_CONVS
    mask_share: float = 0.8
    mask_span: int = 10
    min_spans: int = 2
    labels: str = "labels"
    labels_per_frame: int = 1

    def __post_init__(self) -> None:
        field, _ = receptive_field(self.kernels_and_strides)
        require(self.crop_samples >= field, "crop_samples", self.crop_samples, f"at least one frame, {field} samples")
        require(0 <= self.mask_share <= 1, "mask_share", self.mask_share, "between 0 and 1")
        require(self.mask_span > 0, "mask_span", self.mask_span, "at least 1 frame")
        require(self.min_spans >= 0, "min_spans", self.min_spans, "at least 0")
        require(self.labels_per_frame > 0, "labels_per_frame", self.labels_per_frame, "at least 1")

    @property
    def frames(self) -> int:
        """Frames of a crop."""
        return conv_frames(self.crop_samples, self.kernels_and_strides)

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `samples` `[N]` and frame labels `[T]` to one example.

        The example: `samples` `[N]` float32, `sample_mask` `[N]`, `labels` `[T]` int32 (0 where none), `label_mask`
        `[T]` (a real frame with a label), `span_mask` `[T]` (frames to hide, all of them real).
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            _, hop = receptive_field(self.kernels_and_strides)
            start = hop * int(rng.integers(max(0, len(item["samples"]) - self.crop_samples) // hop + 1))
            samples = float_samples(item["samples"][start : start + self.crop_samples])
            frames = conv_frames(len(samples), self.kernels_and_strides)
            labels = item[self.labels][:: self.labels_per_frame][start // hop :][:frames].astype(np.int32)
            return {
                "samples": np.pad(samples, (0, self.crop_samples - len(samples))),
                "sample_mask": np.arange(self.crop_samples) < len(samples),
                "labels": np.pad(labels, (0, self.frames - len(labels))),
                "label_mask": np.arange(self.frames) < len(labels),
                "span_mask": np.pad(self._spans(frames, rng), (0, self.frames - frames)),
            }

        return example

    def _spans(self, frames: int, rng: np.random.Generator) -> Bool[np.ndarray, "T"]:
        return mask_spans(frames, rng, share=self.mask_share, span=self.mask_span, min_spans=self.min_spans)


def mask_spans(
    frames: int, rng: np.random.Generator, *, share: float, span: int, min_spans: int = 0
) -> Bool[np.ndarray, "T"]:
    """Union of random spans over `frames` frames, as in wav2vec 2.0 and HuBERT (fairseq's static spans).

    The number of spans is `share * frames / span`, rounded up or down at random so that its mean is exact; starts are
    drawn without replacement. Two frames or more never get all hidden: a span is at most half of a short row.
    """
    mask = np.zeros(frames, bool)
    if frames < 2 or share == 0:
        return mask
    span = min(span, frames // 2)
    starts = frames - span + 1
    count = min(max(int(share * frames / span + rng.random()), min_spans), starts)
    chosen = rng.choice(starts, count, replace=False)
    mask[(chosen[:, None] + np.arange(span)).ravel()] = True
    if mask.all():
        mask[rng.integers(frames)] = False
    return mask
