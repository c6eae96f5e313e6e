"""Waveforms to overlapping frames and back, causal, whole and step by step: what stands around a codec over spectra."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.stft import frame, overlap_add, polar, window_of
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import length_mask, zero_padded
from slm_jax.nn.streaming_conv import rows_from

LEAST_COVER = 1e-3
"""Where windows hardly reach, at the ends of a row, sums are divided by no less than this."""


class CausalFraming:
    """Samples `[B, N, 1]` to frames `[B, T, window]`: frame t ends with sample (t + 1) hop, silence before the first.

    A row that ends within a hop is completed with silence.
    """

    latency = 0

    def __init__(self, window: int, hop: int) -> None:
        require(window >= hop, "window", window, f"must reach over the {hop} samples of a hop")
        self.window, self.stride, self.receptive_field = window, hop, window

    def __call__(self, frames: Frames) -> Frames:
        missing = -frames.values.shape[1] % self.stride
        values = jnp.pad(zero_padded(frames.values, frames.mask), ((0, 0), (0, missing), (0, 0)))
        mask = jnp.pad(frames.mask, ((0, 0), (0, missing)))
        return self.step(Frames(values, mask), self.initial_state(len(values)))[0]

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Float[Array, "B K"]:
        """Silence before the first sample."""
        return jnp.zeros((batch, self.window - self.stride), dtype or jnp.float32)

    def step(self, frames: Frames, state: Float[Array, "B K"]) -> tuple[Frames, Float[Array, "B K"]]:
        """The next samples, whole hops of them."""
        joined = jnp.concatenate([state, zero_padded(frames.values, frames.mask)[..., 0]], axis=1)
        hops = -(-frames.mask.sum(-1) // self.stride)
        kept = rows_from(joined[..., None], hops * self.stride, state.shape[1])[..., 0]
        mask = length_mask(hops, frames.values.shape[1] // self.stride)
        return Frames(zero_padded(frame(joined, self.window, self.stride), mask), mask), kept

    def reset(self, state: Float[Array, "B K"], rows: Bool[Array, "B"]) -> Float[Array, "B K"]:
        """The state with `rows` back at the beginning."""
        return jnp.where(rows[:, None], 0, state)


class CausalISTFT:
    """Log magnitudes and phases `[B, T, 2 F]` to samples `[B, T hop, 1]`; the window of frame t ends with hop t.

    Step by step what comes out is `latency` frames old, since later windows reach back so far; `finish` gives the rest.
    Sums are divided by those of the squared windows that reached there.
    """

    stride, receptive_field = 1, None

    def __init__(self, n_fft: int, hop: int) -> None:
        require(n_fft >= hop and n_fft % hop == 0, "n_fft", n_fft, f"a multiple of the hop of {hop}")
        self.n_fft, self.hop, self.latency = n_fft, hop, n_fft // hop - 1
        self.window = jnp.asarray(window_of("hann", n_fft), jnp.float32)

    def __call__(self, frames: Frames) -> Frames:
        made, state = self.step(frames, self.initial_state(len(frames.values)))
        rest, lengths = self.finish(state), frames.mask.sum(-1)
        count = frames.mask.shape[1] * self.hop
        samples = jnp.concatenate([made.values, jnp.zeros((len(rest), self.latency * self.hop, 1))], axis=1)
        placed = jax.vmap(lambda row, tail, start: jax.lax.dynamic_update_slice_in_dim(row, tail, start, 0))
        samples = placed(samples, rest, lengths * self.hop)[:, self.latency * self.hop :]
        mask = length_mask(lengths * self.hop, count)
        return Frames(zero_padded(samples, mask), mask)

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Float[Array, "B K 2"]:
        """Nothing before the first frame: sums, and those of the windows."""
        return jnp.zeros((batch, self.latency * self.hop, 2), dtype or jnp.float32)

    def step(self, frames: Frames, state: Float[Array, "B K 2"]) -> tuple[Frames, Float[Array, "B K 2"]]:
        """The next frames; of a row's first `latency` ones what comes out stands before its beginning."""
        real = frames.mask[..., None]
        spectra = polar(*jnp.split(frames.values.astype(jnp.float32), 2, axis=-1))
        pieces = jnp.where(real, jnp.fft.irfft(spectra, self.n_fft) * self.window, 0.0)
        sums = [overlap_add(x, self.hop) for x in (pieces, jnp.where(real, self.window**2, 0.0))]
        new = jnp.stack(sums, -1).at[:, : state.shape[1]].add(state)
        lengths, count = frames.mask.sum(-1) * self.hop, frames.mask.shape[1] * self.hop
        mask = length_mask(lengths, count)
        out = Frames(zero_padded(_divided(new[:, :count]), mask), mask)
        return out, rows_from(new, lengths, state.shape[1])

    def finish(self, state: Float[Array, "B K 2"]) -> Float[Array, "B K 1"]:
        """What is left of rows that end here."""
        return _divided(state)

    def reset(self, state: Float[Array, "B K 2"], rows: Bool[Array, "B"]) -> Float[Array, "B K 2"]:
        """The state with `rows` back at the beginning."""
        return jnp.where(rows[:, None, None], 0, state)


def _divided(sums: Float[Array, "B N 2"]) -> Float[Array, "B N 1"]:
    return sums[..., :1] / jnp.maximum(sums[..., 1:], LEAST_COVER)
