import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation import decode
from slm_jax.generation.advance import decoding
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.sequence_models.presets import gpt2
from tests.contracts.checks import random_params
from tests.optimised import XLAS_OWN

MODEL = gpt2(vocabulary=19, layers=2, width=16, heads=2, hidden=24, max_positions=80).make()
IDS = np.random.default_rng(0).integers(0, 19, (3, 9))
LENGTHS = np.array([9, 2, 5])
MASK = np.arange(9) < LENGTHS[:, None]
PARAMS = random_params(MODEL, jax.random.key(1), jnp.asarray(IDS), scale=0.4)
SAMPLED = SamplingConfig(max_new=14, temperature=0.9, top_k=12, top_p=0.95, repetition_penalty=1.1, end=4, min_new=2)
GREEDY = SamplingConfig(max_new=14, temperature=0.0)


@jax.jit
def logits_at(ids, length):
    mask = jnp.arange(ids.shape[0]) < length
    return MODEL.apply({"params": PARAMS}, ids[None], mask=mask[None])[0, length - 1]


def test_greedy_takes_the_likeliest_token_of_the_whole_row_each_time():
    out = generate(MODEL, PARAMS, IDS, MASK, jax.random.key(0), GREEDY)
    assert np.asarray(out.mask).all()
    for row, length in enumerate(LENGTHS):
        ids = np.zeros(32, np.int32)
        ids[:length] = IDS[row, :length]
        for n in range(14):
            logits = np.asarray(logits_at(jnp.asarray(ids), length + n))
            ids[length + n] = out.ids[row, n]
            assert logits.argmax() == ids[length + n]
            wanted = logits[ids[length + n]] - np.logaddexp.reduce(logits)
            assert float(out.log_probs[row, n]) == pytest.approx(wanted, abs=1e-4)


WARM = SamplingConfig(max_new=14, temperature=3.0, end=4, min_new=3, forbidden=(2, 7))
RECORDED = {
    "greedy": (
        GREEDY,
        [[9] * 14, [9, 9, 9, 9, 5, 18, *[9] * 8], [9, 9, 9, 5, 16, 17, 5, 18, 16, *[9] * 5]],
        [-6.4599, -7.3573, -12.0619],
    ),
    "sampled": (
        SAMPLED,
        [
            [9, 17, 7, 17, 16, 10, 5, 7, 2, 16, 8, 17, 9, 9],
            [9, 9, 12, 5, 0, 2, 18, 9, 10, 17, 1, 16, 16, 14],
            [9, 9, 9, 5, 1, 9, 0, 0, 0, 16, 9, 5, 18, 7],
        ],
        [-22.1767, -20.0519, -19.0719],
    ),
    "warm": (
        WARM,
        [
            [13, 17, 10, 3, 6, 10, 13, 16, 12, 0, 8, 4, 0, 0],
            [12, 15, 16, 14, 17, 16, 14, 9, 9, 9, 1, 16, 16, 14],
            [17, 17, 17, 3, 17, 1, 17, 16, 3, 17, 9, 5, 18, 11],
        ],
        [-48.6005, -41.6587, -33.9620],
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_tokens_are_those_of_the_loop_before_advance(name):
    config, ids, log_probs = RECORDED[name]
    out = generate(MODEL, PARAMS, IDS, MASK, jax.random.key(5), config)
    assert np.asarray(out.ids).tolist() == ids
    np.testing.assert_allclose(np.asarray(out.log_probs).sum(1), log_probs, atol=2e-3)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_row_gets_the_tokens_it_gets_alone(config):
    keys = jax.random.split(jax.random.key(3), 3)
    together = generate(MODEL, PARAMS, IDS, MASK, keys, config)
    for row, length in enumerate(LENGTHS):
        alone = generate(
            MODEL, PARAMS, IDS[row : row + 1, :length], MASK[row : row + 1, :length], keys[row][None], config
        )
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_array_equal(alone.mask[0], together.mask[row])
        np.testing.assert_allclose(alone.log_probs[0], together.log_probs[row], atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_loop_copies_no_cache(rows):
    prompts, mask = IDS[:rows].astype(np.int32), MASK[:rows]
    keys = jax.random.split(jax.random.key(0), rows)
    lowered = decode._generate.lower(decoding(MODEL, GREEDY), 64, None, PARAMS, prompts, mask, keys, None, None)
    program = lowered.compile(compiler_options=XLAS_OWN).as_text()
    loop, _ = program.split("\nENTRY ")  # the entry comes last; it may copy the cache into the loop
    cache = re.escape(f"f32[{rows},2,64,8]")
    assert re.search(cache, loop)
    assert not re.findall(rf" = {cache}\S* copy\(", loop)


def test_padding_on_the_left_and_garbage_in_it_change_nothing():
    left = np.full((3, 11), 7)
    left_mask = np.arange(11) >= 11 - LENGTHS[:, None]
    left[left_mask] = IDS[MASK]
    first, second = (generate(MODEL, PARAMS, *p, jax.random.key(3), SAMPLED) for p in ((IDS, MASK), (left, left_mask)))
    np.testing.assert_array_equal(first.ids, second.ids)


def test_rows_stop_at_their_end_token_and_not_before_their_least_length():
    config = SamplingConfig(max_new=14, temperature=3.0, end=4, min_new=3)
    out = generate(MODEL, PARAMS, np.repeat(IDS, 8, 0), np.repeat(MASK, 8, 0), jax.random.key(0), config)
    ids, mask = np.asarray(out.ids), np.asarray(out.mask)
    lengths = mask.sum(1)
    assert lengths.min() < 14, "no row met its end: the test sees nothing"
    for row, length in zip(ids, lengths, strict=True):
        assert (row[: length - 1] != 4).all()
        assert length == 14 or row[length - 1] == 4
        assert (row[length:] == 0).all()
    assert lengths.min() > 3
    np.testing.assert_array_equal(mask, np.arange(14) < lengths[:, None])
    assert (np.asarray(out.log_probs)[~mask] == 0).all()


def test_prompts_of_one_bucket_share_a_program_and_keys_matter():
    first = generate(MODEL, PARAMS, IDS, MASK, jax.random.key(0), SAMPLED)
    programs = decode._generate._cache_size()
    second = generate(MODEL, PARAMS, IDS[:, :6], MASK[:, :6], jax.random.key(1), SAMPLED)
    assert decode._generate._cache_size() == programs
    assert (np.asarray(first.ids) != np.asarray(second.ids)).any()


@pytest.mark.parametrize(
    "prompts, mask, message",
    [
        (IDS, np.zeros_like(MASK), "at least one token"),
        (IDS + 19, MASK, r"\[0, 19\)"),
        (np.zeros((1, 70), int), np.ones((1, 70), bool), "80 positions"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(prompts, mask, message):
    with pytest.raises(UserError, match=message):
        generate(MODEL, PARAMS, prompts, mask, jax.random.key(0), GREEDY)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"forced": np.full((3, 15), -1)}, "at most 14 steps"),
        ({"forced": np.full((3, 2), 19)}, r"-1, -2 \(empty\) or within the sizes"),
        ({"unconditional": (IDS, MASK)}, "guidance"),
    ],
)
def test_options_that_do_not_fit_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        generate(MODEL, PARAMS, IDS, MASK, jax.random.key(0), GREEDY, **more)
