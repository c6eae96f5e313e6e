"""Decoding that listens: every row to its own context, all beams of a row to one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.generation import beam, decode
from slm_jax.generation.advance import decoding
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.decode import generate
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from tests.contracts.checks import random_params
from tests.generation.small_models import IDS, LENGTHS, MASK, ONE, ONE_PARAMS, V
from tests.optimised import XLAS_OWN

E, S = 10, 9
MODEL = ONE.clone(config=ONE.config.replace(context_width=E))
HEARD = np.array([9, 3, 6])
REAL = np.arange(S) < HEARD[:, None]
CONTEXT = Frames(jax.random.normal(jax.random.key(5), (3, S, E)), jnp.asarray(REAL))
PARAMS = random_params(MODEL, jax.random.key(1), jnp.zeros((3, 2), jnp.int32), context=CONTEXT)
GREEDY = SamplingConfig(max_new=8, temperature=0.0, end=3)
BEAMS = BeamConfig(beams=4)
KEY = jax.random.key(0)


def rows_of(context, row, heard=S):
    return jax.tree.map(lambda leaf: leaf[row : row + 1, :heard], context)


def spoilt(context):
    """The same with garbage where it is padding."""
    return Frames(jnp.where(context.mask[..., None], context.values, 50.0), context.mask)


def test_a_row_gets_the_tokens_it_gets_alone_with_its_own_context():
    together = generate(MODEL, PARAMS, IDS, MASK, KEY, GREEDY, context=spoilt(CONTEXT))
    for row in (0, 1):
        own, ids = rows_of(CONTEXT, row, HEARD[row]), IDS[row : row + 1, : LENGTHS[row]]
        alone = generate(MODEL, PARAMS, ids, np.ones(ids.shape, bool), KEY, GREEDY, context=own)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_allclose(alone.log_probs[0], together.log_probs[row], atol=1e-5)
    other = generate(MODEL, PARAMS, IDS, MASK, KEY, GREEDY, context=Frames(CONTEXT.values[::-1], CONTEXT.mask[::-1]))
    assert (np.asarray(other.ids)[[0, 2]] != np.asarray(together.ids)[[0, 2]]).any(1).all(), "nobody listens"


def test_greedy_takes_the_likeliest_token_of_the_whole_row_each_time():
    made = generate(MODEL, PARAMS, IDS[:1], MASK[:1], KEY, GREEDY.replace(end=None), context=rows_of(CONTEXT, 0))
    whole = np.concatenate([IDS[:1], made.ids], axis=1)
    logits = jax.jit(lambda ids: MODEL.apply({"params": PARAMS}, ids, context=rows_of(CONTEXT, 0)))(whole)
    assert np.asarray(logits)[0, 5:-1].argmax(-1).tolist() == np.asarray(made.ids)[0].tolist()


def test_with_and_without_the_condition_a_row_hears_the_same():
    """A prompt that is its own condition-free form: guidance then changes nothing, if both copies hear the row's."""
    plain = generate(MODEL, PARAMS, IDS, MASK, KEY, GREEDY, context=CONTEXT)
    guided = GREEDY.replace(guidance=3.0)
    both = generate(MODEL, PARAMS, IDS, MASK, KEY, guided, unconditional=(IDS, MASK), context=CONTEXT)
    np.testing.assert_array_equal(plain.ids, both.ids)
    free = generate(MODEL, PARAMS, IDS, MASK, KEY, guided, unconditional=(IDS[:, :1], MASK[:, :1]), context=CONTEXT)
    assert (np.asarray(free.ids) != np.asarray(plain.ids)).any()


def test_beams_of_a_row_are_those_it_gets_alone():
    together = beam_search(MODEL, PARAMS, IDS, MASK, GREEDY, BEAMS, context=spoilt(CONTEXT))
    own, ids = rows_of(CONTEXT, 1, HEARD[1]), IDS[1:2, : LENGTHS[1]]
    alone = beam_search(MODEL, PARAMS, ids, np.ones(ids.shape, bool), GREEDY, BEAMS, context=own)
    np.testing.assert_array_equal(alone.ids[0], together.ids[1])
    np.testing.assert_allclose(alone.scores[0], together.scores[1], atol=1e-5)


def test_as_many_beams_as_there_are_sequences_find_the_best_of_all():
    rules = Rules(np.isin(np.arange(V), [1, 2, 4])[None, None], np.array([], np.int32))
    two = SamplingConfig(max_new=2)
    found = beam_search(
        MODEL, PARAMS, IDS[1:2], MASK[1:2], two, BeamConfig(beams=9), rules=rules, context=rows_of(CONTEXT, 1)
    )
    pairs = np.array([(a, b) for a in (1, 2, 4) for b in (1, 2, 4)])
    whole = np.concatenate([np.repeat(IDS[1:2, :2], 9, 0), pairs], 1)
    nine = jax.tree.map(lambda leaf: jnp.repeat(leaf, 9, 0), rows_of(CONTEXT, 1))
    logits = jax.jit(lambda ids: MODEL.apply({"params": PARAMS}, ids, context=nine))(whole)
    log_probs = jax.nn.log_softmax(logits, axis=-1)[:, -3:-1]
    scores = np.take_along_axis(np.asarray(log_probs), pairs[..., None], 2)[..., 0].sum(1) / 2
    order = np.argsort(-scores)
    assert np.asarray(found.ids[0]).tolist() == pairs[order].tolist()
    np.testing.assert_allclose(found.scores[0], scores[order], atol=1e-4)


def test_beams_keep_one_context_for_each_row_and_no_loop_copies_it():
    prompts, keys = IDS.astype(np.int32), jax.random.split(KEY, 3)
    lowered = beam._search.lower(decoding(MODEL, GREEDY), BEAMS, 64, PARAMS, prompts, MASK, CONTEXT)
    assert re.search(r"tensor<3x2x9x8xf32>", lowered.as_text())
    assert not re.search(r"tensor<12x2x9x8xf32>", lowered.as_text())
    assert re.search(r"tensor<12x2x64x8xf32>", lowered.as_text()), "each beam has a sequence of its own"
    lowered = decode._generate.lower(decoding(MODEL, GREEDY), 64, None, PARAMS, prompts, MASK, keys, None, CONTEXT)
    loop = body_of(lowered.compile(compiler_options=XLAS_OWN).as_text())
    kept = re.findall(r" = f32\[3,2,9,8\]\S* (\S+?)\(", loop)
    assert kept == ["get-tuple-element"] * 4, "keys and values of two layers, as they are"


def body_of(program):
    """The computation that the only loop of a compiled program repeats."""
    (name,) = re.findall(r"body=%?([\w.\-]+)", program)
    return re.search(rf"^%?{re.escape(name)} \(.*?^}}", program, re.MULTILINE | re.DOTALL)[0]


def test_a_context_for_other_rows_is_refused():
    for run in (
        lambda: generate(MODEL, PARAMS, IDS, MASK, KEY, GREEDY, context=rows_of(CONTEXT, 0)),
        lambda: beam_search(MODEL, PARAMS, IDS, MASK, GREEDY, BEAMS, context=rows_of(CONTEXT, 0)),
    ):
        with pytest.raises(UserError, match=r"context is \(1, 9, 10\): must hold what each of the 3 rows"):
            run()
    with pytest.raises(UserError, match=r"context .* is None"):
        generate(MODEL, PARAMS, IDS, MASK, KEY, GREEDY)
    with pytest.raises(UserError, match="listens to none"):
        generate(ONE, ONE_PARAMS, IDS, MASK, KEY, GREEDY, context=CONTEXT)
