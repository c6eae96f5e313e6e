"""What a codec's spectra are compared by, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.objectives.codec import CodecLossConfig, CodecObjective
from slm_jax.objectives.vocoder import spectrum_of
from tests.codecs import CODECS

RESOLUTIONS = ((256, 64, 20), (128, 32, 10))
CODEC = CODECS["over spectra"].make()
RNG = np.random.default_rng(0)
MADE, TARGET = (jnp.asarray(0.1 * RNG.standard_normal((2, 640)), jnp.float32) for _ in range(2))
MASK = jnp.asarray(np.arange(640) < np.array([640, 320])[:, None])


def spectral(**fields):
    config = CodecLossConfig(resolutions=RESOLUTIONS, **fields)
    return CodecObjective(config, CODEC).spectral(MADE, TARGET, MASK)


def by_hand(row, frame):
    """Mean over the real frames of a row of what `frame` says of one, then over resolutions."""
    found = []
    for n_fft, hop, mels in RESOLUTIONS:
        spectrum = spectrum_of(n_fft, hop, mels, CODEC.config.rate_hz)
        made, target = (np.asarray(spectrum(x), np.float64)[row] for x in (MADE, TARGET))
        count = int(MASK[row].sum()) // hop
        found.append(np.mean([frame(made[t], target[t], n_fft) for t in range(count)]))
    return np.mean(found)


def soundstream(made, target, n_fft):
    logs = np.sqrt(n_fft / 2) * np.linalg.norm(made - target)
    return np.abs(np.exp(made) - np.exp(target)).sum() + logs


@pytest.mark.parametrize("row", [0, 1])
def test_spectra_of_soundstream_and_plain_ones(row):
    np.testing.assert_allclose(spectral(linear=True)[row], by_hand(row, soundstream), rtol=1e-4)
    plain = by_hand(row, lambda made, target, n_fft: np.abs(made - target).mean())
    np.testing.assert_allclose(spectral()[row], plain, rtol=1e-4)


def test_what_is_equal_costs_nothing_and_has_a_gradient():
    objective = CodecObjective(CodecLossConfig(resolutions=RESOLUTIONS, linear=True), CODEC)
    value, slope = jax.value_and_grad(lambda made: objective.spectral(made, TARGET, MASK).sum())(TARGET)
    assert value < 1e-3 and bool(jnp.isfinite(slope).all())


def test_two_forms_at_once_are_refused():
    with pytest.raises(UserError, match="linear is True"):
        CodecLossConfig(linear=True, squared=True)
