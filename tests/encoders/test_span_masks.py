"""Masks that an encoder draws for itself: how much of real frames they cover, and that only training draws them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.span_masks import SpanMasksConfig, random_spans
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

LENGTHS = np.array([400, 120, 6, 1, 0])
REAL = jnp.asarray(np.arange(400) < LENGTHS[:, None])
MASKS = SpanMasksConfig(share=0.5, span=2, channel_share=0.25, channel_span=4)


def runs(row):
    """Lengths of the stretches that are masked."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_spans_cover_their_share_of_what_is_real():
    """65 % in spans of 10 that may overlap: fewer than that, as many as independent starts would."""
    draw = jax.jit(lambda key: random_spans(key, REAL, 0.65, 10, 2))
    found = np.stack([draw(key) for key in jax.random.split(jax.random.key(0), 40)])
    assert not found[:, ~np.asarray(REAL)].any()
    share = found[:, 0].mean()
    assert abs(share - (1 - np.exp(-0.65))) < 0.03
    assert found[:, 1, :120].mean() == pytest.approx(share, abs=0.05)
    assert all(length >= 10 for row in found[:, 0] for length in runs(row))
    assert len({row.tobytes() for row in found[:, 0]}) == 40
    assert found[:, 2, :6].all() and found[:, 3, :1].all(), "a row shorter than a span is masked whole"


def test_nothing_is_drawn_for_no_share():
    assert not random_spans(jax.random.key(0), REAL, 0.0, 10, 2).any()


def test_channels_are_masked_in_bands_row_by_row():
    found = np.asarray(SpanMasksConfig(channel_share=0.25).channels(jax.random.key(0), 2, 768))
    assert all(min(runs(row)) >= 64 for row in found)
    assert (found[0] != found[1]).any()


def test_an_encoder_masks_in_training_only():
    config = ENCODERS["waveform"].replace(dropout=0.0, attention_dropout=0.0)
    masking, samples = (
        config.replace(masks=MASKS),
        jnp.asarray(np.random.default_rng(0).standard_normal((2, 3000)), jnp.float32),
    )
    params = random_params(config.make(), jax.random.key(0), samples)

    def frames(config, **settings):
        return jax.jit(lambda p: config.make().apply({"params": p}, samples, **settings).values)(params)

    np.testing.assert_array_equal(frames(masking), frames(config))
    drawn = {"deterministic": False, "rngs": {"dropout": jax.random.key(1)}}
    assert np.abs(frames(masking, **drawn) - frames(config, **drawn)).max() > 0.1


@pytest.mark.parametrize("field, value", [("share", 1.5), ("span", 0), ("channel_span", 0), ("least", -1)])
def test_bad_values_are_named(field, value):
    with pytest.raises(UserError, match=f"^{field} is"):
        SpanMasksConfig(**{field: value})
