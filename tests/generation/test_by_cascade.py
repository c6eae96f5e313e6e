"""A cascade decoded: what is given stays, what is drawn is legal, clips stand alone, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec, single
from slm_jax.generation.by_cascade import Model, rules_of_pass, write_cascade
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.schemes.cascade import audiolm
from slm_jax.sequence_models.presets import audiolm_stage
from slm_jax.token_compression.dedup import dedup_row
from tests.contracts.checks import random_params

UNITS, N, NAMES, COARSE = 9, 5, ("q0", "q1", "q2"), 2
SEMANTIC = single("units", UNITS, 640, 16_000, columns=("units",))
BOOKS = tuple(Codebook(name=name, size=N) for name in NAMES)
CASCADE = audiolm(SEMANTIC, TokenSpec(codebooks=BOOKS, hop=320, rate_hz=16_000, columns=NAMES), COARSE, chunk_s=4 / 50)
V = 40
STAGE = audiolm_stage(
    V,
    layers=1,
    width=8,
    heads=2,
    hidden=16,
    relative_bias=RelativeBiasConfig(buckets=4, max_distance=6, bidirectional=False),
).make()
MODELS = [Model(STAGE, random_params(STAGE, jax.random.key(i), jnp.zeros((1, 2), jnp.int32))) for i in range(3)]
CONFIGS = [SamplingConfig(max_new=12, temperature=t, min_new=1) for t in (0.6, 0.8, 0.6)]
RNG = np.random.default_rng(0)
PROMPTS = [
    {"units": RNG.integers(0, UNITS, units), "q0": RNG.integers(0, N, frames), "q1": RNG.integers(0, N, frames)}
    for units, frames in ((3, 6), (1, 2))
]
FRAMES = 10


def written(given, key=7, **settings):
    return write_cascade(CASCADE, MODELS, given, jax.random.split(jax.random.key(key), 2), CONFIGS, **settings)


@pytest.fixture(scope="module")
def continued():
    return written(PROMPTS, frames=FRAMES)


def test_a_continuation_keeps_its_prompt_and_all_that_is_new_is_legal(continued):
    for made, prompt in zip(continued, PROMPTS, strict=True):
        runs = dedup_row(prompt["units"])[0]
        np.testing.assert_array_equal(made["units"][: len(runs)], runs)
        assert made["units"].max() < UNITS
        for name in NAMES:
            assert len(prompt["q0"]) < len(made[name]) <= FRAMES and ((made[name] >= 0) & (made[name] < N)).all()
        for name in NAMES[:COARSE]:
            np.testing.assert_array_equal(made[name][: len(prompt[name])], prompt[name])
    drawn = np.concatenate([made[name] for made in continued for name in NAMES])
    assert len(set(drawn.tolist())) > 2


def test_a_clip_gets_what_it_gets_alone(continued):
    alone = write_cascade(
        CASCADE, MODELS, PROMPTS[1:], jax.random.split(jax.random.key(7), 2)[1:], CONFIGS, frames=FRAMES
    )
    for name, values in alone[0].items():
        np.testing.assert_array_equal(values, continued[1][name])


def test_given_units_are_kept_and_say_how_long_it_lasts():
    given = [{"units": np.array([1, 1, 2])}, {"units": np.array([4])}]
    made = written(given, mode="acoustic")
    assert [one["units"].tolist() for one in made] == [[1, 2], [4]]
    assert [[len(one[name]) for name in NAMES] for one in made] == [[6] * 3, [2] * 3]


def test_codes_that_are_known_beside_all_units_are_kept():
    made = write_cascade(CASCADE, MODELS, PROMPTS[:1], jax.random.key(0), CONFIGS, mode="acoustic")
    for name in ("q0", "q1"):
        np.testing.assert_array_equal(made[0][name], PROMPTS[0][name])
    assert len(made[0]["q2"]) == len(PROMPTS[0]["q0"])


def test_fine_codes_that_are_known_are_kept_within_their_chunks():
    known = RNG.integers(0, N, 6)  # one chunk and a half
    given = [PROMPTS[0] | {"q2": known}]
    made = write_cascade(CASCADE, MODELS, given, jax.random.key(0), CONFIGS, frames=6)
    np.testing.assert_array_equal(made[0]["q2"], known)
    np.testing.assert_array_equal(made[0]["q0"], PROMPTS[0]["q0"])


def test_each_clip_has_a_number_of_frames_of_its_own():
    longest = [len(one["q2"]) for one in written(PROMPTS, frames=[6, 8])]
    assert longest[0] == 6 and 2 < longest[1] <= 8
    with pytest.raises(UserError, match="frames is 1: 2 clips are given"):
        written(PROMPTS, frames=[6])


def test_from_nothing_everything_is_written():
    made = written([{}, {}], mode="unconditional", frames=4)
    assert all(len(one["units"]) >= 1 and 1 <= len(one["q2"]) <= 4 for one in made)
    assert all(len({len(one[name]) for name in NAMES}) == 1 for one in made)
    assert any(not np.array_equal(made[0][name], made[1][name]) for name in made[0])


def test_rules_go_round_through_the_books_that_a_pass_writes():
    rules = rules_of_pass(CASCADE, 1, V)
    assert rules.legal.shape == (COARSE, 1, V) and rules.cycle == COARSE and rules.of_drawn
    end = CASCADE.vocabulary(1).eos_id
    assert rules_of_pass(CASCADE, 0, V).ends.tolist() == rules.ends.tolist() == [end]
    assert rules.legal[:, 0, end].tolist() == [True, False]
    for exact in (rules_of_pass(CASCADE, 1, V, ends=False), rules_of_pass(CASCADE, 2, V)):
        assert exact.ends.tolist() == [] and not exact.legal[:, 0, end].any()
    with pytest.raises(UserError, match="vocabulary of model 1 is 8: this pass has 22 ids"):
        rules_of_pass(CASCADE, 1, 8)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([{}], {"frames": 4}, "given books is 'none': the continuation mode needs units"),
        ([{"units": np.array([1])}], {"frames": 4}, "given books is 'units': the continuation mode needs q0"),
        ([PROMPTS[0]], {}, "frames is None: the continuation mode needs a number"),
        ([PROMPTS[0]], {"frames": 5}, "frames of q0 that are given is 6: 5 are to be written"),
        ([{"units": np.ones(1), "q9": np.ones(1)}], {"mode": "acoustic"}, "given book is 'q9': the acoustic mode"),
        ([PROMPTS[0]], {"mode": "unconditional", "frames": 4}, "the unconditional mode takes none"),
        ([PROMPTS[0] | {"units": np.arange(9)}], {"frames": 9}, "units of a clip is 9: the 6 frames of codes are 2"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(given, settings, message):
    with pytest.raises(UserError, match=message):
        write_cascade(CASCADE, MODELS, given, jax.random.key(0), CONFIGS, **settings)
