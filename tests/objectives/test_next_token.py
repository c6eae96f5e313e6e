import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.objectives.cross_entropy import Terms, chunked_token_sums, token_sums
from slm_jax.objectives.next_token import CHUNK, LARGE_VOCABULARY, NextTokenConfig, counted_targets
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.presets import opt
from tests.contracts.checks import assert_close, random_params

MODEL = opt("350m", vocabulary=13, layers=1, width=8, heads=2, hidden=12, embed_width=6, max_positions=20).make()
IDS = jax.random.randint(jax.random.key(0), (2, 10), 0, 13)
PARAMS = random_params(MODEL, jax.random.key(1), IDS)
MASK = jnp.arange(10) < jnp.array([10, 6])[:, None]


def loss(params, batch, rng=None, **settings):
    return NextTokenConfig(**settings).make(MODEL)({"params": params}, batch, rng)


compiled_loss = jax.jit(loss)


def by_hand(ids, mask) -> tuple[float, float, int]:
    """Sum of losses, number of right guesses, number of targets, one token at a time."""
    logits = np.asarray(jax.jit(lambda p: MODEL.apply({"params": p}, ids, mask=mask))(PARAMS), np.float64)
    total, correct, count = 0.0, 0, 0
    for b, t in np.ndindex(2, 9):
        if mask[b, t + 1]:
            total -= logits[b, t, ids[b, t + 1]] - np.logaddexp.reduce(logits[b, t])
            correct += logits[b, t].argmax() == ids[b, t + 1]
            count += 1
    return total, correct, count


def test_sums_over_real_targets_and_reports_both_metrics():
    out = compiled_loss(PARAMS, {"ids": IDS, "mask": MASK, "example": jnp.arange(2)})
    term = out.terms["tokens"]
    total, correct, count = by_hand(IDS, MASK)
    assert float(term.total) == pytest.approx(total, rel=1e-5)
    assert (float(term.count), float(out.metrics["accuracy"][0])) == (count, correct) == (14, correct)
    assert float(out.metrics["nll"][0]) == pytest.approx(total, rel=1e-5)


def test_packed_rows_weigh_as_their_examples_alone():
    packed = jnp.concatenate([IDS[0, :6], IDS[1, :3], jnp.zeros(1, jnp.int32)])[None]
    segments = jnp.array([[1] * 6 + [2] * 3 + [0]])
    together = compiled_loss(PARAMS, {"ids": packed, "segment_ids": segments}).terms["tokens"]
    apart = compiled_loss(PARAMS, {"ids": IDS, "mask": jnp.arange(10) < jnp.array([6, 3])[:, None]}).terms["tokens"]
    assert float(together.count) == float(apart.count) == 5 + 2
    assert float(together.total) == pytest.approx(float(apart.total), rel=1e-5)


def test_unwanted_targets_do_not_count():
    wanted = jnp.arange(10) >= 4
    counted = counted_targets(IDS, MASK, None, jnp.broadcast_to(wanted, IDS.shape))
    assert counted.sum(1).tolist() == [6, 2]
    assert counted[0].tolist() == [False] * 3 + [True] * 6


@pytest.mark.parametrize("chunk", [None, 4])
def test_float_weights_weigh_and_those_of_one_and_zero_are_flags(chunk):
    flags = jax.random.bernoulli(jax.random.key(5), 0.6, IDS.shape)
    weights = jax.random.uniform(jax.random.key(6), IDS.shape) * flags

    def sums(**batch):
        def value(params):
            out = loss(params, {"ids": IDS, "mask": MASK, **batch}, chunk=chunk)
            return out.terms["tokens"].total, out

        return jax.jit(jax.grad(value, has_aux=True))(PARAMS)

    whole = sums(target_mask=flags)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), sums(target_weight=flags.astype(jnp.float32)), whole)
    grads, out = sums(target_weight=weights)
    logits = np.asarray(MODEL.apply({"params": PARAMS}, IDS, mask=MASK), np.float64)[:, :-1]
    nll = np.logaddexp.reduce(logits, -1) - np.take_along_axis(logits, np.asarray(IDS)[:, 1:, None], -1)[..., 0]
    each = np.asarray(weights * MASK)[:, 1:]
    assert float(out.terms["tokens"].total) == pytest.approx(float((nll * each).sum()), rel=1e-5)
    assert float(out.terms["tokens"].count) == pytest.approx(float(each.sum()), rel=1e-5)
    right = (logits.argmax(-1) == np.asarray(IDS)[:, 1:]) * each
    assert float(out.metrics["accuracy"][0]) == pytest.approx(float(right.sum()), rel=1e-5)
    doubled, _ = sums(target_weight=2 * weights)
    jax.tree.map(lambda a, b: assert_close(2 * a, b, 1e-5), grads, doubled)


@pytest.mark.parametrize("chunk", [4, 100])
def test_chunks_equal_the_whole_in_value_and_gradient(chunk):
    settings = {"label_smoothing": 0.1, "z_loss": 1e-2}
    batch = {"ids": IDS, "mask": MASK}

    def mean(params, chunk):
        out = loss(params, batch, chunk=chunk, **settings)
        return out.value(), out

    compiled = jax.jit(jax.value_and_grad(mean, has_aux=True), static_argnums=1)
    (value, out), gradients = compiled(PARAMS, chunk)
    (wanted, wanted_out), wanted_gradients = compiled(PARAMS, None)
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), (gradients, out), (wanted_gradients, wanted_out))


def test_logits_of_a_large_vocabulary_never_exist_at_once():
    """No array of the program, forwards or backwards, holds all steps of time times all words."""
    words, length = LARGE_VOCABULARY, 2 * CHUNK
    ids = jnp.zeros((2, length), jnp.int32)

    def largest(vocabulary: int, **settings) -> int:
        model = opt(vocabulary=vocabulary, layers=1, width=8, heads=2, hidden=12, max_positions=length).make()
        params = jax.eval_shape(lambda: model.init(jax.random.key(0), ids[:1, :4]))["params"]
        objective = NextTokenConfig(**settings).make(model)
        step = jax.grad(lambda params: objective({"params": params}, {"ids": ids}, None).terms["tokens"].total)
        return largest_array(jax.make_jaxpr(step)(unbox(params)).jaxpr)

    assert largest(words) < 2 * length * words / 1.9
    assert largest(words, chunk=None) >= 2 * length * words
    assert largest(words - 1) >= 2 * length * (words - 1), "small ones are made at once"


def largest_array(jaxpr) -> int:
    """Entries of the largest array that a program makes, those inside its loops and calls included."""
    own = [math.prod(v.aval.shape) for eqn in jaxpr.eqns for v in eqn.outvars]
    given = [getattr(leaf, "jaxpr", leaf) for eqn in jaxpr.eqns for leaf in jax.tree.leaves(eqn.params)]
    return max(own + [largest_array(each) for each in given if hasattr(each, "eqns")], default=0)


def test_chunks_also_run_without_a_gradient():
    key = jax.random.key(0)
    features, matrix = jax.random.normal(key, (2, 5, 4)), jax.random.normal(key, (4, 7))
    targets, counted = jnp.ones((2, 5), jnp.int32), jnp.ones((2, 5), bool)
    sums = chunked_token_sums(Terms(), 2, features, matrix, targets, counted)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), sums, token_sums(features @ matrix, targets, counted, Terms()))


def test_a_tied_table_read_as_it_lies_gives_the_same_sums_and_gradients():
    key = jax.random.key(0)
    features, table = jax.random.normal(key, (2, 5, 4)), jax.random.normal(key, (7, 4))
    targets, counted = jnp.arange(10).reshape(2, 5) % 7, jnp.arange(10).reshape(2, 5) % 3 > 0

    def loss(features, table, tied):
        return chunked_token_sums(Terms(), 2, features, table.T, targets, counted, tied).loss

    pairs = [jax.value_and_grad(loss, argnums=(0, 1))(features, table, tied) for tied in (True, False)]
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), *pairs)
    assert float(jnp.abs(pairs[0][1][1]).max()) > 0


def test_smoothing_and_the_normaliser_term_equal_pytorch():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(1, 6, 9)).astype(np.float32) * 3
    targets = np.random.default_rng(1).integers(0, 9, (1, 6))
    sums = token_sums(jnp.asarray(logits), jnp.asarray(targets), jnp.ones((1, 6), bool), Terms(0.2, 0.1))
    rows = torch.tensor(logits[0])
    wanted = torch.nn.functional.cross_entropy(rows, torch.tensor(targets[0]), label_smoothing=0.2, reduction="sum")
    wanted = wanted + 0.1 * torch.logsumexp(rows, -1).square().sum()
    assert float(sums.loss) == pytest.approx(float(wanted), rel=1e-5)


def test_what_stands_in_padding_has_no_effect_not_even_nan():
    logits = jax.random.normal(jax.random.key(0), (1, 4, 5))
    counted = jnp.array([[True, True, False, False]])

    def total(logits):
        return token_sums(logits, jnp.zeros((1, 4), jnp.int32), counted, Terms(0.1, 0.1)).loss

    value, gradient = jax.jit(jax.value_and_grad(total))(logits.at[:, 2:].set(jnp.nan))
    assert float(value) == pytest.approx(float(total(logits)), rel=1e-6)
    assert np.isfinite(np.asarray(gradient)).all()


def test_dropout_draws_from_the_key_and_is_off_without_one():
    model = MODEL.clone(config=MODEL.config.replace(dropout=0.3, attention_dropout=0.2, activation_dropout=0.2))
    objective = NextTokenConfig().make(model)
    batch = {"ids": np.asarray(IDS), "mask": np.asarray(MASK)}
    run = jax.jit(lambda params, key: objective({"params": params}, batch, key).terms["tokens"].total)
    still = float(compiled_loss(PARAMS, batch).terms["tokens"].total)
    assert float(run(PARAMS, None)) == pytest.approx(still, rel=1e-6)
    noisy = [float(run(PARAMS, jax.random.key(seed))) for seed in (0, 0, 1)]
    assert noisy[0] == noisy[1]
    assert len({still, *noisy}) == 3


def test_settings_without_meaning_are_refused():
    with pytest.raises(UserError, match="chunk"):
        NextTokenConfig(chunk=0)
