"""Alignment: segments of speech by hand, what a frozen table gets, distributions that are alike where rows are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.nn.lora import with_lora
from slm_jax.objectives.alignment import Alignment, SameWordsConfig
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.objectives.token_distance import (
    OrderedSegmentsConfig,
    TimedSegmentsConfig,
    TokenDistanceConfig,
    token_distances,
)
from tests.assemblies.small_speech_aware import CONFIG, LORA, drawn, drawn_lora
from tests.assemblies.test_speech_aware_lm import rows

STACKED = LinearAdapterConfig(width=2, stack=4)
SPEECH = Frames(
    jnp.arange(12, dtype=jnp.float32).reshape(2, 3, 2), jnp.array([[True, True, True], [True, False, False]])
)


def told(spans) -> dict:
    spans = jnp.asarray(spans, jnp.float32)
    return {"token_spans": spans, "token_mask": jnp.ones(spans.shape[:2], bool)}


def test_a_token_is_the_mean_of_what_stands_for_its_stretch():
    """Vectors of four frames each: 0 to 4, 4 to 8, 8 to 12; the second row has one."""
    batch = told([[[0, 4], [2, 8], [11, 11]], [[1, 3], [5, 6], [3, 9]]])
    found = TimedSegmentsConfig().segment(SPEECH, batch, STACKED)
    assert found.mask.tolist() == [[True, True, False], [True, False, True]]
    first = np.array([[0.0, 1.0], [0.0 / 3 + 2 * 2 / 3, 1 / 3 + 3 * 2 / 3]])
    np.testing.assert_allclose(found.values[0, :2], first, atol=1e-6)
    np.testing.assert_allclose(found.values[1, [0, 2]], [[6.0, 7.0], [6.0, 7.0]], atol=1e-6)


def test_vectors_that_are_tokens_go_in_order():
    batch = told(np.zeros((2, 4, 2)))
    found = OrderedSegmentsConfig().segment(SPEECH, batch, STACKED)
    assert found.mask.tolist() == [[True, True, True, False], [True, False, False, False]]
    np.testing.assert_array_equal(found.values[:, :3], SPEECH.values)


@pytest.mark.parametrize(
    "adapter",
    [
        QFormerAdapterConfig(width=2, queries=3),
        CTCAdapterConfig(width=2, segments=CTCSegmentsConfig(vocabulary=3, rule="runs")),
    ],
)
def test_vectors_that_stand_for_no_stretch_are_refused(adapter):
    with pytest.raises(UserError, match="stand for no stretch of time"):
        TimedSegmentsConfig().check(adapter)
    TimedSegmentsConfig().check(STACKED)
    assert TimedSegmentsConfig().frames_per_vector(STACKED) == 4


@pytest.mark.parametrize("distance", ["mse", "cosine", "contrastive"])
def test_a_token_that_is_its_own_row_is_nearest_and_silence_has_a_finite_gradient(distance):
    config = TokenDistanceConfig(distance=distance)
    generator = np.random.default_rng(0)
    table = generator.standard_normal((6, 4)).astype(np.float32)
    ids = jnp.array([[0, 1, 2], [3, 1, 0]])
    real = jnp.array([[True, True, True], [True, True, False]])
    rows = jnp.asarray(table)[ids]

    def total(values):
        found = token_distances(config, Frames(values, real), rows, ids, real)
        return found.total / found.count, found

    right, found = total(rows)
    assert (float(found.count), float(found.nearest), float(found.missing)) == (5, 5, 0)
    wrong, other = total(jnp.roll(rows, 1, axis=1))
    assert float(right) < float(wrong) and float(other.nearest) < 5
    slope = jax.grad(lambda values: total(values)[0])(jnp.zeros_like(rows))
    assert np.isfinite(slope).all() and np.abs(slope)[1, 2].max() == 0
    if distance == "mse":
        assert float(total(jnp.zeros_like(rows))[0]) == pytest.approx(1.0, rel=1e-5)
    table_slope = jax.grad(lambda rows: token_distances(config, Frames(rows + 1, real), rows, ids, real).total)(rows)
    assert distance == "mse" or np.isfinite(table_slope).all()


def test_rows_that_say_the_same_are_alike_and_lora_is_what_differs():
    """A row without a clip is its own text: the distributions are one until LoRA changes ours."""
    model = with_lora(CONFIG.make(), LORA)
    batch = rows()
    no_clip = {**batch, "speech_at": np.full_like(batch["speech_at"], -1)}
    written = {"text_ids": batch["ids"], "text_mask": batch["mask"], "text_weight": batch["target_weight"]}
    objective = Alignment(model, NextTokenConfig(), 0.5, None, SameWordsConfig(weight=2.0, temperature=2.0))
    loss = jax.jit(lambda variables, batch: objective(variables, batch, None))
    lora = drawn_lora(model)
    none = jax.tree.map(np.zeros_like, lora)
    same = loss(drawn() | {"lora": none}, {**no_clip, **written})
    changed = loss(drawn() | {"lora": lora}, {**no_clip, **written})
    heard = loss(drawn() | {"lora": none}, {**batch, **written})
    assert abs(float(same.terms["alike"].total)) < 1e-4 * float(same.terms["alike"].count)
    assert float(changed.terms["alike"].total) > 0.01 and float(heard.terms["alike"].total) > 0.01
    plain = jax.jit(Answers(model, NextTokenConfig()), static_argnums=2)(drawn() | {"lora": none}, batch, None)
    assert float(heard.terms["answer"].total) == pytest.approx(float(plain.terms["answer"].total), rel=1e-5)
    assert (heard.terms["answer"].weight, heard.terms["alike"].weight) == (0.5, 2.0)
    assert float(heard.terms["alike"].count) == float(plain.terms["answer"].count)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: TokenDistanceConfig(distance="l1"), "distance is 'l1'"),
        (lambda: TokenDistanceConfig(temperature=0.0), "temperature is 0.0"),
        (lambda: SameWordsConfig(weight=0.0), "weight is 0.0"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(made, told):
    with pytest.raises(UserError, match=told):
        made()
