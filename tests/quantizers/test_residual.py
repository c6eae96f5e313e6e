"""Residual quantizers: what is left goes to the next book, whatever the form; what training and serving see agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Codes, Frames
from slm_jax.quantizers.codebook_start import started
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.fsq import FSQConfig
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from tests.codecs import drawn_like

BOOK = CodebookConfig(size=16, width=6)
LEARNT = CodebookConfig(size=16, width=3, learning="gradient", normalised=True)
PLAIN = ResidualVQConfig(width=6, books=3, codebook=BOOK)
AROUND = ResidualVQConfig(width=6, books=2, codebook=BOOK.replace(width=4), projection="around")
EACH = ResidualVQConfig(width=6, books=3, codebook=LEARNT, projection="each")
RATES = EACH.replace(strides=(4, 2, 1))
SPLIT = ParallelVQConfig(parts=(AROUND.replace(books=1), AROUND))
GROUPED = ParallelVQConfig(parts=(PLAIN, PLAIN.replace(books=2)), over="channels")
LEVELS = FSQConfig(width=6, levels=(5, 4, 3))
ALL = {
    "plain": PLAIN,
    "around": AROUND,
    "each": EACH,
    "rates": RATES,
    "split": SPLIT,
    "grouped": GROUPED,
    "levels": LEVELS,
}
TURNED = PLAIN.replace(estimator="rotation")


def latents(config, batch=2, frames=8, seed=0):
    values = np.random.default_rng(seed).standard_normal((batch, frames, config.width)).astype(np.float32)
    mask = np.arange(frames) < np.array([frames, frames - 4])[:batch, None]
    return Frames(jnp.asarray(values), jnp.asarray(mask))


def drawn(config, given):
    return drawn_like(config.make(), given, seed=1)


@pytest.fixture(params=ALL, scope="module")
def case(request):
    config = ALL[request.param]
    given = latents(config)
    return config, given, drawn(config, given)


def test_training_and_serving_agree(case):
    config, given, variables = case
    module = config.make()
    found = module.apply(variables, given)
    codes = module.apply(variables, given, method="encode")
    np.testing.assert_array_equal(codes.ids, found.ids)
    assert codes.ids.shape[-1] == len(config.sizes) == config.columns()
    assert len(np.unique(codes.ids)) > 5
    decoded = module.apply(variables, codes, method="decode")
    np.testing.assert_allclose(decoded.values, found.values, atol=1e-5)
    np.testing.assert_array_equal(decoded.mask, given.mask)
    assert not np.asarray(decoded.values)[~np.asarray(given.mask)].any()


@pytest.mark.parametrize("case", ["rates", "split"], indirect=True)
def test_a_padded_row_is_the_row_alone(case):
    config, given, variables = case
    module = config.make()
    alone = Frames(given.values[1:, :4], given.mask[1:, :4])
    padded = Frames(given.values.at[1, 4:].set(jnp.nan), given.mask)
    together, one = (module.apply(variables, frames, method="encode") for frames in (padded, alone))
    np.testing.assert_array_equal(together.ids[1, : one.ids.shape[1]], one.ids[0])
    np.testing.assert_array_equal(together.mask.sum(-1), given.mask.sum(-1) // config.stride)


@pytest.mark.parametrize("case", ["plain", "grouped", "each"], indirect=True)
def test_the_first_books_are_a_coarser_version(case):
    config, given, variables = case
    module, errors = config.make(), []
    variables = (
        variables if config is LEVELS or not config.counted else started(config, variables, latents(config, 2, 64))
    )
    every = module.apply(variables, given, method="encode").ids
    for books in range(1, config.books + 1):
        codes = module.apply(variables, given, books, method="encode")
        np.testing.assert_array_equal(codes.ids, every[..., : config.columns(books)])
        values = module.apply(variables, codes, method="decode").values
        errors.append(float(jnp.square(values - given.values)[np.asarray(given.mask)].mean()))
    if config in (PLAIN, GROUPED):  # the others map what they read, by maps that nobody trained
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize("name", ["plain", "each", "split", "levels"])
def test_books_that_are_not_there_are_refused(name):
    config = ALL[name]
    with pytest.raises(UserError, match="books is 9: the quantizer has"):
        config.columns(9)


def test_each_book_takes_what_those_before_have_left():
    given = latents(PLAIN)
    variables = drawn(PLAIN, given)
    entries, left = np.asarray(variables["codebooks"]["codebooks"]["entries"]), np.asarray(given.values[0])
    found = PLAIN.make().apply(variables, given, method="encode").ids[0]
    for book in range(3):
        nearest = ((left[:, None] - entries[book]) ** 2).sum(-1).argmin(-1)
        np.testing.assert_array_equal(found[:, book], nearest)
        left = left - entries[book][nearest]


def test_books_at_several_rates_share_a_frame():
    given = latents(RATES)
    codes = RATES.make().apply(drawn(RATES, given), given, method="encode")
    assert codes.ids.shape == (2, 2, 1 + 2 + 4) and RATES.repeats == (1, 2, 4)
    with pytest.raises(UserError, match="latents is 6: a multiple of the 4"):
        RATES.make().apply(drawn(RATES, given), Frames(given.values[:, :6], given.mask[:, :6]), method="encode")


@pytest.mark.parametrize("config", [PLAIN, TURNED], ids=["straight through", "rotation"])
def test_the_gradient_passes(config):
    given = latents(config)
    variables = drawn(config, given)

    def score(values):
        return jnp.sum(jnp.sin(config.make().apply(variables, Frames(values, given.mask)).values))

    gradient = np.asarray(jax.grad(score)(given.values))
    passed = np.asarray(jnp.cos(config.make().apply(variables, given).values))
    if config is PLAIN:
        np.testing.assert_allclose(gradient[0], passed[0], rtol=1e-5)
    else:  # turned and stretched by what turns the vector onto its code
        values, made = np.asarray(given.values[0]), np.asarray(config.make().apply(variables, given).values[0])
        stretch = np.linalg.norm(made, axis=-1) / np.linalg.norm(values, axis=-1)
        lengths = np.linalg.norm(gradient[0], axis=-1) / np.linalg.norm(passed[0], axis=-1)
        np.testing.assert_allclose(lengths, stretch, rtol=1e-4)
        angles = (gradient[0] * values).sum(-1) / (
            np.linalg.norm(gradient[0], axis=-1) * np.linalg.norm(values, axis=-1)
        )
        before = (passed[0] * made).sum(-1) / (np.linalg.norm(passed[0], axis=-1) * np.linalg.norm(made, axis=-1))
        np.testing.assert_allclose(angles, before, atol=1e-4)
    assert not gradient[1, 4:].any()


def test_books_are_dropped_row_by_row():
    config, given = PLAIN.replace(dropout=0.6), latents(PLAIN, batch=1)
    many = Frames(jnp.tile(given.values, (200, 1, 1)), jnp.tile(given.mask, (200, 1)))
    variables = drawn(config, given)
    found = config.make().apply(variables, many, deterministic=False, rngs={"dropout": jax.random.key(3)})
    counts = np.bincount(np.asarray(found.used).sum(-1), minlength=4) / 200
    assert 0.1 < counts[1] < 0.3 and 0.1 < counts[2] < 0.3 and 0.45 < counts[3] < 0.75 and counts[0] == 0
    row = int(np.asarray(found.used).sum(-1).argmin())
    books = int(found.used[row].sum())
    codes = Codes(found.ids[:, :, :books], many.mask)
    alone = config.make().apply(variables, codes, method="decode")
    np.testing.assert_allclose(found.values[row], alone.values[row], atol=1e-5)
    assert not found.commitment[row, :, books:].any() and found.commitment[row, :, :books].all()


def test_a_batch_draws_one_of_its_bitrates_together():
    config, given = PLAIN.replace(dropout=1.0, counts=(1, 3), alike=True), latents(PLAIN)
    variables = drawn(config, given)
    run = jax.jit(lambda key: config.make().apply(variables, given, deterministic=False, rngs={"dropout": key}).used)
    used = np.stack([run(key) for key in jax.random.split(jax.random.key(0), 24)]).sum(-1)
    assert (used == used[:, :1]).all() and set(used[:, 0]) == {1, 3}
    with pytest.raises(UserError, match="counts is "):
        PLAIN.replace(counts=(0,))


def test_levels_are_those_of_the_paper():
    values = jnp.linspace(-3, 3, 48).reshape(1, 16, 3)
    config = FSQConfig(width=3, levels=(5, 4, 3))
    given = Frames(values, jnp.ones((1, 16), bool))
    module, variables = config.make(), drawn(config, given)
    codes = module.apply(variables, given, method="encode")
    assert (int(codes.ids.min()), int(codes.ids.max()), config.size) == (0, 59, 60)
    decoded = np.asarray(module.apply(variables, codes, method="decode").values)
    assert sorted(np.unique(decoded[..., 0])) == [-1, -0.5, 0, 0.5, 1]
    assert sorted(np.unique(decoded[..., 1])) == [-1, -0.5, 0, 0.5]
    ends = Codes(jnp.array([[[0], [59]]]), jnp.ones((1, 2), bool))
    lowest, highest = module.apply(variables, ends, method="decode").values[0]
    np.testing.assert_allclose([lowest, highest], [[-1, -1, -1], [1, 0.5, 1]], atol=1e-6)
