"""w2v-BERT apart from parity with PyTorch: frames of a row, distances, masks, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.span_masks import SpanMasksConfig
from slm_jax.encoders.stacked_fbank import stacked_fbank
from slm_jax.encoders.w2v_bert import w2v_bert_2, w2v_bert_audiolm, w2v_bert_tiny
from slm_jax.nn.relative_key import RelativeKeyConfig, by_key
from tests.contracts.checks import random_params
from tests.shapes import W2V_BERT

N, SHORT = 3_760, 1_900


@pytest.fixture(scope="module")
def rows() -> tuple[jax.Array, jax.Array]:
    samples = np.random.default_rng(0).standard_normal((2, N)).astype(np.float32) * 0.1
    return jnp.asarray(samples), jnp.arange(N) < jnp.array([[N], [SHORT]])


def test_frames_are_counted_by_whole_stacks():
    config = w2v_bert_2()
    assert (config.hop, config.shortest) == (320, 560)
    assert [config.frame_count(n) for n in (0, 559, 560, 16_000, 16_080, 160_000)] == [0, 0, 1, 49, 49, 499]
    np.testing.assert_array_equal(config.frame_count(jnp.array([559, 560])), [0, 1])
    assert (w2v_bert_audiolm().hop, w2v_bert_audiolm().frame_count(160_000)) == (640, 249)


def test_features_are_standardised_by_the_real_frames_of_each_row(rows):
    samples, mask = rows
    out = stacked_fbank(jnp.where(mask, samples, jnp.nan), mask, 20, 2)
    assert out.values.shape == (2, 11, 40) and out.mask.sum(1).tolist() == [11, 5]
    for row in range(2):
        frames = np.asarray(out.values[row])[np.asarray(out.mask[row])].reshape(-1, 20)
        np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(frames.std(0, ddof=1), 1, atol=1e-3)


@pytest.mark.parametrize(("left", "right", "length"), [(2, 1, 6), (0, 0, 4), (9, 9, 3), (1, 3, 1)])
def test_each_key_gets_the_number_of_its_clipped_distance(left, right, length):
    config = RelativeKeyConfig(left=left, right=right)
    scores = np.random.default_rng(1).standard_normal((2, 3, length, config.distances)).astype(np.float32)
    offsets = np.arange(length)[None] - np.arange(length)[:, None]
    index = np.clip(offsets, -left, right) + left
    wanted = np.take_along_axis(scores, np.broadcast_to(index, (2, 3, length, length)), axis=-1)
    np.testing.assert_array_equal(by_key(jnp.asarray(scores), config), wanted)


def test_masked_frames_become_the_embedding_and_training_draws_them(rows):
    config = W2V_BERT.replace(masks=SpanMasksConfig(share=0.5, span=2), conv_dropout=0.0, layer_drop=0.0)
    params = random_params(config.make(), jax.random.key(0), rows[0])
    spans = jnp.zeros((2, 11), bool).at[0, 3].set(True)

    def first(**settings):
        given = {"params": params}, *rows
        return np.asarray(config.make().apply(*given, layer=0, **settings).values)

    masked, plain = first(span_mask=spans), first()
    np.testing.assert_array_equal(masked[0, 3], params["mask_embedding"])
    np.testing.assert_array_equal(np.delete(masked[0], 3, 0), np.delete(plain[0], 3, 0))
    trained = first(deterministic=False, rngs={"dropout": jax.random.key(1)})
    hidden = (trained == np.asarray(params["mask_embedding"])).all(-1)
    assert hidden.any(1).all() and not hidden[1, 5:].any()
    np.testing.assert_array_equal(trained[~hidden], plain[~hidden])


def test_too_short_a_waveform_is_refused():
    with pytest.raises(UserError, match=r"samples is \(1, 559\).*at least 560 samples"):
        jax.eval_shape(W2V_BERT.make().init, jax.random.key(0), jnp.zeros((1, 559)))


@pytest.mark.parametrize(
    "field, value", [("kernel", 4), ("heads", 5), ("layers", 0), ("stacked", 0), ("conv_dropout", 1.0)]
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        W2V_BERT.replace(**{field: value})


def test_travels_as_json():
    for config in (w2v_bert_2(), w2v_bert_tiny()):
        assert from_json(config.to_json()) == config
