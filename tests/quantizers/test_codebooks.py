"""Codebooks that averages move: statistics whatever the cut, codes that begin anew, a start from clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.quantizers.codebook_start import started
from slm_jax.quantizers.codebooks import CodebookConfig, Seen, moved, smoothed_counts
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from tests.codecs import drawn_like

PLAIN = ResidualVQConfig(width=5, books=2, codebook=CodebookConfig(size=8, width=5))
SPLIT = ParallelVQConfig(parts=(PLAIN.replace(books=1), PLAIN))


def batch(rows, frames=12, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(frames) < rng.integers(frames // 2, frames + 1, rows)[:, None]
    values = rng.standard_normal((rows, frames, 5)).astype(np.float32)
    return Frames(jnp.asarray(values), jnp.asarray(mask)), jnp.asarray(rng.integers(0, 1000, rows))


def variables_of(config, frames):
    return drawn_like(config.make(), frames, seed=1)


@pytest.mark.parametrize("config", [PLAIN, SPLIT], ids=["residual", "split"])
def test_statistics_of_parts_add_up_to_those_of_the_whole(config):
    frames, rows = batch(6)
    variables, module = variables_of(config, frames), config.make()
    see = jax.jit(lambda mask: module.apply(variables, Frames(frames.values, mask), rows=rows).seen)
    whole = see(frames.mask)
    parts = [see(frames.mask & np.isin(np.arange(6), picked)[:, None]) for picked in ([0, 3], [1, 4, 5], [2])]
    added = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), added, whole)
    first = whole if isinstance(whole, Seen) else whole["parts_0"]
    assert float(first.counts.sum()) == float(frames.mask.sum()) * first.counts.shape[0]


def test_averages_follow_what_chose_them_as_in_encodec():
    """The order of EnCodec's step: counts and sums decay, then entries are the sums over smoothed counts."""
    rng = np.random.default_rng(0)
    config = CodebookConfig(size=8, width=5, revive=0.0)
    usage, sums = rng.random((2, 8)).astype(np.float32) + 1, rng.standard_normal((2, 8, 5)).astype(np.float32)
    counts, new = rng.integers(0, 5, (2, 8)).astype(np.float32), rng.standard_normal((2, 8, 5)).astype(np.float32)
    seen = Seen(*map(jnp.asarray, (counts, new, new, counts)))
    found = moved(config, {"entries": sums, "usage": usage, "sums": sums}, seen)
    wanted_usage, wanted_sums = 0.99 * usage + 0.01 * counts, 0.99 * sums + 0.01 * new
    total = wanted_usage.sum(-1, keepdims=True)
    smoothed = (wanted_usage + 1e-5) / (total + 8e-5) * total
    np.testing.assert_allclose(found["usage"], wanted_usage, rtol=1e-6)
    np.testing.assert_allclose(found["sums"], wanted_sums, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["entries"], wanted_sums / smoothed[..., None], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(smoothed_counts(jnp.asarray(wanted_usage), 1e-5).sum(-1), total[:, 0], rtol=1e-5)


def test_codes_that_nobody_chooses_take_vectors_of_the_batch():
    config = PLAIN.replace(codebook=PLAIN.codebook.replace(revive=0.2, size=64))  # some vectors for each code
    frames, rows = batch(40)
    variables = variables_of(config, frames)
    books = variables["codebooks"]["codebooks"]
    far = books["entries"].at[:, 3].set(100.0)
    books = {"entries": far, "usage": books["usage"].at[:, 3].set(0.0), "sums": books["sums"]}
    seen = config.make().apply({"codebooks": {"codebooks": books}}, frames, rows=rows).seen
    assert float(seen.counts[0, 3]) == 0 and float(seen.weights[0, 3]) > 0
    after = config.moved({"codebooks": books}, seen)["codebooks"]
    real = np.asarray(frames.values)[np.asarray(frames.mask)]
    distance = np.linalg.norm(real - np.asarray(after["entries"][0, 3]), axis=-1)
    assert distance.min() < 0.1, "it is (nearly) one of the vectors of the batch"
    assert 0.5 < float(after["usage"][0, 3]) / float(after["usage"][0].mean()) <= 1.01
    np.testing.assert_allclose(after["sums"][0, 3], after["entries"][0, 3] * after["usage"][0, 3], rtol=1e-5)


@pytest.mark.parametrize("config", [PLAIN, SPLIT], ids=["residual", "split"])
def test_books_start_as_clusters_of_what_they_are_given(config):
    frames, _ = batch(30)
    drawn = variables_of(config, frames)
    made = started(config, drawn, frames)

    def error(variables):
        values = config.make().apply(variables, frames).values
        return float(jnp.square(values - frames.values)[frames.mask].mean())

    if config is PLAIN:
        assert error(made) < 0.5 * error(drawn)
    books = made["codebooks"]["codebooks" if config is PLAIN else "parts_1"]
    books = books if config is PLAIN else books["codebooks"]
    np.testing.assert_allclose(books["usage"].sum(-1), frames.mask.sum())
    np.testing.assert_allclose(books["sums"], books["entries"] * books["usage"][..., None], rtol=1e-5)
    with pytest.raises(UserError, match="latents to start codebooks from is 3: at least the 8"):
        started(config, drawn, Frames(frames.values[:1, :3], jnp.ones((1, 3), bool)))
