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
