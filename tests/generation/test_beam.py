import re

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation import beam
from slm_jax.generation.advance import decoding
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from tests.generation.small_models import IDS, LENGTHS, MASK, ONE, ONE_PARAMS, THREE, THREE_PARAMS, V

CONFIG = SamplingConfig(max_new=6, ends=(3, 5))
BEAMS = BeamConfig(beams=4)


def test_a_row_gets_the_sequences_it_gets_alone():
    together = beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG, BEAMS)
    assert (np.diff(together.scores, axis=1) <= 0).all()
    for row, length in enumerate(LENGTHS):
        real = np.ones((1, length), bool)
        alone = beam_search(ONE, ONE_PARAMS, IDS[row : row + 1, :length], real, CONFIG, BEAMS)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_array_equal(alone.mask[0], together.mask[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)


def test_as_many_beams_as_there_are_sequences_find_the_best_of_all():
    config = SamplingConfig(max_new=2)
    legal = np.isin(np.arange(V), [1, 2, 4])[None, None]
    rules = Rules(legal, np.array([], np.int32))
    found = beam_search(ONE, ONE_PARAMS, IDS[:1], MASK[:1], config, BeamConfig(beams=9), rules=rules)
    pairs = np.array([(a, b) for a in (1, 2, 4) for b in (1, 2, 4)])
    whole = np.concatenate([np.repeat(IDS[:1], 9, 0), pairs], 1)
    logits = jax.jit(lambda ids: ONE.apply({"params": ONE_PARAMS}, ids))(whole)
    log_probs = jax.nn.log_softmax(logits, axis=-1)[:, -3:-1]
    scores = np.take_along_axis(np.asarray(log_probs), pairs[..., None], 2)[..., 0].sum(1) / 2
    order = np.argsort(-scores)
    assert np.asarray(found.ids[0]).tolist() == pairs[order].tolist()
    np.testing.assert_allclose(found.scores[0], scores[order], atol=1e-4)


def test_the_loop_is_one_program_that_reorders_its_caches():
    lowered = beam._search.lower(decoding(ONE, CONFIG), BEAMS, 64, ONE_PARAMS, IDS.astype(np.int32), MASK)
    gathers = re.findall(r"stablehlo\.gather.*tensor<12x2x64x8xf32>", lowered.as_text())
    assert lowered.as_text().count("stablehlo.while") >= 1
    assert len(gathers) >= 4, "keys and values of two layers"


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: BeamConfig(beams=0), "beams"),
        (lambda: BeamConfig(early_stopping="soon"), "early_stopping"),
        (lambda: beam_search(THREE, THREE_PARAMS, IDS, MASK, CONFIG, BEAMS), "one stream"),
        (lambda: beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG.replace(repetition_penalty=1.2), BEAMS), "penalty"),
        (lambda: beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG.replace(max_new=99), BEAMS), "64 positions"),
    ],
)
def test_what_beams_cannot_do_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_kept_back_at_first_is_so_behind_prompts_of_any_length(beams):
    """Phases that count what was drawn; those that count all entries hold for prompts of one length only."""
    free = beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG, BeamConfig(beams=beams))
    first = np.asarray(free.ids)[:, 0, 0]
    legal = np.ones((2, 1, V), bool)
    legal[0, 0, first] = False
    rules = Rules(legal, np.array(CONFIG.ends, np.int32), of_drawn=True)
    held = beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG, BeamConfig(beams=beams), rules=rules)
    assert not np.isin(np.asarray(held.ids)[:, :, 0], first).any()
    assert np.isin(np.asarray(held.ids)[:, :, 1:], first).any(), "later they may come"
    if beams == 1:
        return
    of_all = Rules(np.concatenate([legal[1:]] * 6 + [legal]), rules.ends)
    wrong = beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG, BeamConfig(beams=beams), rules=of_all)
    assert np.isin(np.asarray(wrong.ids)[1:, :, 0], first).any()


@pytest.mark.parametrize("beams", [1, 4])
def test_a_bonus_for_each_token_is_in_the_score_and_draws_answers_out(beams):
    plain = BeamConfig(beams=beams, length_penalty=0.0, early_stopping="never")
    without, with_it = (
        beam_search(ONE, ONE_PARAMS, IDS, MASK, CONFIG, plain.replace(token_bonus=bonus)) for bonus in (0.0, 5.0)
    )
    lengths = [np.asarray(found.mask).sum(-1)[:, 0] for found in (without, with_it)]
    if beams == 1:  # the likeliest token is the same
        np.testing.assert_allclose((with_it.scores - without.scores)[:, 0], 5.0 * lengths[1], rtol=1e-5)
    else:
        assert (lengths[1] == CONFIG.max_new).all() and lengths[0].min() < CONFIG.max_new
