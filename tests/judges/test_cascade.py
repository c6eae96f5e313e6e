"""The judge of a cascade: nats beside counted n-grams, and what is given to be heard."""

import numpy as np

from slm_jax.evaluation.cascade import written_log_probs
from slm_jax.judges.cascade import CascadeJudge, nats_of_passes, said_again
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import CODES, drawn_cascade

SYSTEM = drawn_cascade()
CLIPS = [noise(0.5, seed=1), noise(0.4, seed=2)]


def test_nats_are_means_of_log_probs_and_a_unigram_is_what_is_counted():
    books = [SYSTEM.deduplicated(one) for one in SYSTEM.encode(CLIPS)]
    found = nats_of_passes(SYSTEM, {"train": books, "dev": [], "test": books})
    assert list(found) == ["units", "codes_0", "codes_1", "codes_2"]
    assert [name for name, row in found.items() if "other_units" in row] == ["codes_0", "codes_1"]
    turned = [{**one, "units": other["units"]} for one, other in zip(books, books[::-1], strict=True)]
    scores = written_log_probs(SYSTEM.cascade, 1, *SYSTEM.models[1], turned)
    by_hand = -np.concatenate([one[:-1][1::2] for one in scores]).mean()
    np.testing.assert_allclose(found["codes_1"]["other_units"], by_hand, rtol=1e-5)
    assert found["codes_1"]["other_units"] != found["codes_1"]["model"]
    scores = written_log_probs(SYSTEM.cascade, 1, *SYSTEM.models[1], books)
    by_hand = -np.concatenate([one[:-1][1::2] for one in scores]).mean()
    np.testing.assert_allclose(found["codes_1"]["model"], by_hand, rtol=1e-5)
    codes = np.concatenate([one["codes_0"] for one in books])
    share = np.bincount(codes, minlength=CODES) / len(codes)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert entropy <= found["codes_0"]["unigram"] < entropy + 0.6  # smoothing costs a little on so few
    assert found["codes_0"]["bigram"] < found["codes_0"]["unigram"]


def test_what_is_heard_is_the_recording_its_codes_and_what_its_units_say():
    clips = said_again(SYSTEM, CLIPS)
    assert list(clips) == ["recorded", "codec", "detail", "acoustic"]
    hop = SYSTEM.codec.config.hop
    for original, coded, detail, acoustic, books in zip(*clips.values(), SYSTEM.encode(CLIPS), strict=True):
        assert len(coded) == len(original) and len(detail) == len(acoustic) == len(books["units"]) * hop
        assert np.abs(acoustic[: len(coded)] - coded[: len(acoustic)]).max() > 0


def test_without_a_transcriber_words_are_left_out_and_that_is_said(tmp_path):
    said = []
    judge = CascadeJudge(whisper=str(tmp_path / "none"))
    assert judge.words({"recorded": CLIPS}, ["a", "b"], SYSTEM.rate_hz, said.append) is None
    assert said and said[0].startswith("words are not counted: ")
