"""A language model of codes as a system, under every scheme: what is kept, batched as alone, scores, refusals."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth
from slm_jax.serving.code_speech_lm import CodeDecoding, codes_of
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, CODES
from tests.serving.drawn_codes import drawn_code_lm

SCHEMES = {
    "parallel": Parallel(),
    "delay": Delay(delays=(0, 1, 2)),
    "interleaved": Flattened(),
    "partly flattened": Flattened(groups=(0, 1, 1)),
    "coarse first": CoarseFirst(coarse=1),
    "coarse first by chunks": CoarseFirst(coarse=1, chunk=4),
    "temporal and depth": TemporalDepth(),
}
CLIPS = [noise(0.3, seed=1), noise(0.2, seed=2), noise(0.3, seed=3)]
KEYS = jax.random.split(jax.random.key(3), 3)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_continuation_begins_with_its_clip_and_a_clip_gets_what_it_gets_alone(name):
    system = drawn_code_lm(SCHEMES[name])
    asked = [spoken(clip, system.rate_hz) for clip in CLIPS]
    replies = system.respond(asked, None, KEYS)
    hop = system.codec.config.hop
    for reply, codes in zip(replies, codes_of(system.codec, asked, system.reads), strict=True):
        made, known = reply.trace["codes"], reply.trace["prompt_frames"]
        assert known == len(codes) and made.shape == (known + 10, BOOKS) and made.max() < CODES
        np.testing.assert_array_equal(made[:known], codes)
        assert len(reply.messages[0].speech[0].samples) == len(made) * hop
    for place in (1, 2):
        (alone,) = system.respond(asked[place : place + 1], None, KEYS[place : place + 1])
        np.testing.assert_array_equal(alone.trace["codes"], replies[place].trace["codes"])
    bare = system.respond(asked[:1], system.decoding.replace(with_prompt=False), KEYS[:1])[0]
    whole = replies[0].messages[0].speech[0].samples
    np.testing.assert_array_equal(bare.messages[0].speech[0].samples, whole[replies[0].trace["prompt_frames"] * hop :])


@pytest.mark.parametrize("name", SCHEMES)
def test_every_code_has_a_score_and_a_clip_scores_as_alone(name):
    system = drawn_code_lm(SCHEMES[name])
    asked = [spoken(clip, system.rate_hz) for clip in CLIPS]
    scores = system.log_prob(asked)
    for score, codes in zip(scores, codes_of(system.codec, asked, system.reads), strict=True):
        assert score.shape == (codes.size,) and (score < 0).all()
    np.testing.assert_allclose(system.log_prob(asked[1:2])[0], scores[1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_heard_is_refused():
    system = drawn_code_lm(Parallel())
    with pytest.raises(UserError, match="something to hear"):
        system.respond([spoken(np.zeros(0, np.float32), system.rate_hz)], None, jax.random.key(0))
    with pytest.raises(UserError, match="seconds"):
        CodeDecoding(seconds=0.0)
    assert system.respond([], None, jax.random.key(0)) == []
