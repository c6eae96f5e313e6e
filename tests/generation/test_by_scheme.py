"""Continuations under every scheme: what the model itself says is likeliest, prompts kept, rows as they are alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY, Codes
from slm_jax.generation.by_scheme import continue_codes, told_steps
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel
from tests.contracts.checks import random_params
from tests.generation.small_models import SIZES, THREE

SCHEMES = {
    "parallel": Parallel(),
    "delay": Delay(delays=(0, 1, 2)),
    "interleaved": Flattened(),
    "partly flattened": Flattened(groups=(0, 1, 1)),
    "coarse first": CoarseFirst(coarse=1),
    "coarse first by chunks": CoarseFirst(coarse=1, chunk=2),
}
FRAMES, LENGTHS = 6, np.array([3, 0, 2])
PROMPTS = Codes(
    jnp.asarray(np.random.default_rng(0).integers(0, SIZES, (3, 3, 3)), jnp.int32),
    jnp.asarray(np.arange(3) < LENGTHS[:, None]),
)
KEYS = jax.random.split(jax.random.key(3), 3)
GREEDY = SamplingConfig(max_new=1, temperature=0.0)
MODELS = {name: THREE.config.replace(blanks=name == "blanks").make() for name in ("nothing", "blanks")}
PARAMS = {
    name: random_params(model, jax.random.key(5), jnp.zeros((1, 2, 3), jnp.int32)) for name, model in MODELS.items()
}


@pytest.fixture(
    params=[name if name == "delay" else pytest.param(name, marks=pytest.mark.slow(seconds=10)) for name in SCHEMES]
)
def scheme(request):
    return SCHEMES[request.param]


@partial(jax.jit, static_argnums=(0, 3))
def logits_of(model, params, codes, scheme):
    """Of every entry of the arranged codes, read as a whole behind a step of empty entries."""
    streams = scheme.arrange(codes)
    ids = jnp.where(streams.valid, streams.ids, EMPTY)
    ids = jnp.concatenate([jnp.full_like(ids[:, :1], EMPTY), ids], 1)
    return model.apply({"params": params}, ids)[:, :-1], streams


@pytest.mark.parametrize("name", ["blanks", pytest.param("nothing", marks=pytest.mark.slow(seconds=10))])
def test_what_is_written_is_what_the_model_finds_likeliest(scheme, name):
    model, params = MODELS[name], PARAMS[name]
    made = continue_codes(model, params, PROMPTS, FRAMES, scheme, KEYS, GREEDY)
    assert made.ids.shape == (3, FRAMES, 3) and bool(made.mask.all())
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(made.ids[row, :length], PROMPTS.ids[row, :length])
    logits, streams = logits_of(model, params, made, scheme)
    drawn = told_steps(scheme, PROMPTS, FRAMES) == -1
    np.testing.assert_array_equal(np.asarray(streams.ids)[drawn], np.asarray(logits.argmax(-1))[drawn])
    assert len(np.unique(np.asarray(made.ids))) > 5


def test_rows_get_alone_what_they_get_in_a_batch(scheme):
    model, params = MODELS["blanks"], PARAMS["blanks"]
    config = GREEDY.replace(temperature=1.0)
    made = np.asarray(continue_codes(model, params, PROMPTS, FRAMES, scheme, KEYS, config).ids)
    assert (made < np.array(SIZES)).all() and (made >= 0).all()
    alone = Codes(PROMPTS.ids[:1], PROMPTS.mask[:1])
    found = continue_codes(model, params, alone, FRAMES, scheme, KEYS[:1], config)
    np.testing.assert_array_equal(found.ids[0], made[0])


def test_no_code_is_seen_by_what_is_written_before_it(scheme):
    model, params = MODELS["blanks"], PARAMS["blanks"]
    rng = np.random.default_rng(1)
    codes = Codes(jnp.asarray(rng.integers(0, SIZES, (1, FRAMES, 3)), jnp.int32), jnp.ones((1, FRAMES), bool))
    table = scheme.table(FRAMES, 3)
    before, _ = logits_of(model, params, codes, scheme)
    for time, codebook in ((0, 2), (3, 0), (4, 1)):
        changed = codes.ids.at[0, time, codebook].set((codes.ids[0, time, codebook] + 1) % 12)
        after, _ = logits_of(model, params, Codes(changed, codes.mask), scheme)
        step = int(np.argwhere((table == (time, codebook)).all(-1))[0, 0])
        np.testing.assert_array_equal(before[0, : step + 1], after[0, : step + 1])
        assert step + 1 == len(table) or float(jnp.abs(before[0, step + 1 :, 0] - after[0, step + 1 :, 0]).max()) > 1e-4


def test_a_prompt_longer_than_the_whole_and_books_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="frames is 2: prompts have"):
        continue_codes(THREE, PARAMS["nothing"], PROMPTS, 2, Parallel(), KEYS, GREEDY)
    two = Codes(PROMPTS.ids[..., :2], PROMPTS.mask)
    with pytest.raises(UserError, match="codebooks is 2: the model has 3 streams"):
        continue_codes(THREE, PARAMS["nothing"], two, FRAMES, Parallel(), KEYS, GREEDY)


def test_codes_beyond_a_table_and_ends_of_rows_are_refused():
    beyond = Codes(PROMPTS.ids.at[0, 1, 2].set(SIZES[2]), PROMPTS.mask)
    with pytest.raises(UserError, match=r"\[12\]"):
        continue_codes(THREE, PARAMS["nothing"], beyond, FRAMES, Parallel(), KEYS, GREEDY)
    with pytest.raises(UserError, match="ends is "):
        continue_codes(THREE, PARAMS["nothing"], PROMPTS, FRAMES, Parallel(), KEYS, GREEDY.replace(end=3))


def test_a_prompt_of_everything_comes_back():
    codes = Codes(PROMPTS.ids, jnp.ones((3, 3), bool))
    made = continue_codes(THREE, PARAMS["nothing"], codes, 3, Delay(delays=(0, 1, 2)), KEYS, GREEDY)
    np.testing.assert_array_equal(made.ids, codes.ids)
