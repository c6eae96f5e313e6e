"""The judge of a model of codes: nats beside counted n-grams, and whether the books of a frame go together."""

import numpy as np

from slm_jax.core.messages import spoken
from slm_jax.evaluation.codes import books_agreement
from slm_jax.judges.codes import nats_by_book, scheme_figures, waiting
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.serving.code_speech_lm import codes_of
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import CODES
from tests.serving.drawn_codes import drawn_code_lm

CLIPS = [noise(0.4, seed=1), noise(0.4, seed=2)]


def test_books_that_follow_each_other_agree_and_books_drawn_apart_do_not():
    rng = np.random.default_rng(0)
    first = rng.integers(8, size=40_000)
    known = np.stack([first, first * 3 % 8], axis=1)
    apart = np.stack([first, rng.permutation(first * 3 % 8)], axis=1)
    found = books_agreement(known[:1000], known, (8, 8))
    np.testing.assert_allclose(found, np.log(8), atol=0.01)
    assert books_agreement(apart[:1000], known, (8, 8)) < -1.0  # most of these pairs were never seen
    assert abs(books_agreement(known[:1000], apart, (8, 8))) < 0.02  # nothing is known that could be agreed with


def test_nats_are_means_of_log_probs_over_the_stretch_that_is_spoken():
    system = drawn_code_lm(Delay(delays=(0, 1, 2)))
    codes = codes_of(system.codec, [spoken(clip, system.rate_hz) for clip in CLIPS], system.reads)
    found = nats_by_book(system, {"train": codes, "dev": [], "test": codes})
    assert list(found) == ["all", "codes_0", "codes_1", "codes_2"]
    by_hand = -np.concatenate(system.log_probs([one[:20] for one in codes])).mean()
    np.testing.assert_allclose(found["all"]["model"], by_hand, rtol=1e-5)
    assert found["codes_0"]["bigram"] < found["codes_0"]["unigram"] < np.log(CODES) + 0.6


def test_steps_and_latency_are_the_tables_and_waiting_is_a_time():
    flat, delayed = drawn_code_lm(Flattened()), drawn_code_lm(Delay(delays=(0, 1, 2)))
    assert scheme_figures(flat) == {"steps_per_second": 150.0, "latency_frames": 0}
    assert scheme_figures(delayed) == {"steps_per_second": 60.0, "latency_frames": 2}
    assert 0 < waiting(delayed, spoken(CLIPS[0], delayed.rate_hz)) < 60
