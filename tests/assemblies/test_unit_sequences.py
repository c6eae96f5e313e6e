"""What a model reads of clips: frames, runs, or byte pairs of runs."""

from itertools import groupby

import numpy as np
import pytest

from slm_jax.assemblies.unit_sequences import BytePairTokenizer, UnitSequences
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError
from slm_jax.token_compression.bpe import UnitBPE
from tests.serving.drawn import noise
from tests.serving.drawn_units import PAIRS, UNITS, drawn_sequences, drawn_tokenizer

CLIPS = [noise(2.0, 1), noise(1.3, 2), noise(0.4, 3)]


@pytest.fixture(scope="module")
def made():
    """Frame by frame, runs, byte pairs."""
    return {name: drawn_sequences(name) for name in ("none", "dedup", "bpe")}


def test_each_compression_says_the_same_in_fewer_ids(made):
    plain, runs, pairs = (one.of_clips(CLIPS) for one in made.values())
    bpe = made["bpe"].tokenizer.bpe
    for units, run, tokens in zip(plain, runs, pairs, strict=True):
        assert [unit for unit, _ in groupby(units.tolist())] == run.tolist()
        np.testing.assert_array_equal(bpe.decode(tokens), run)
        assert tokens.dtype == run.dtype == units.dtype == np.int32
    lengths = [sum(map(len, rows)) for rows in (plain, runs, pairs)]
    assert lengths[0] > 1.1 * lengths[1] > 1.2 * lengths[2], lengths
    assert (made["none"].size, made["dedup"].size, made["bpe"].size) == (UNITS, UNITS, len(bpe))
    assert UNITS < len(bpe) <= PAIRS


@pytest.mark.parametrize("name", ["none", "dedup", "bpe"])
def test_a_padded_batch_gives_what_each_clip_gives_alone(made, name):
    longest = max(map(len, CLIPS))
    samples = np.stack([np.pad(clip, (0, longest - len(clip)), constant_values=0.7) for clip in CLIPS])
    mask = np.arange(longest) < np.array([[len(clip)] for clip in CLIPS])
    for batched, alone in zip(made[name].of_batch(samples, mask), made[name].of_clips(CLIPS), strict=True):
        np.testing.assert_array_equal(batched, alone)


def test_a_clip_without_a_frame_has_no_units_in_a_batch_and_is_refused_alone(made):
    mask = np.arange(1600) < np.array([[1600], [300]])
    full, empty = made["bpe"].of_batch(np.zeros((2, 1600), np.float32), mask)
    assert len(full) > 0 and len(empty) == 0
    with pytest.raises(UserError, match="shorter than one frame"):
        made["bpe"].of_clips([np.zeros(300, np.float32)])


def test_byte_pairs_are_a_tokenizer_whose_frames_add_up(made):
    pairs = made["bpe"].tokenizer
    assert isinstance(pairs, Tokenizer)
    for units, frames in zip(pairs.tokenizer.encode_all(CLIPS), pairs.encode_all(CLIPS), strict=True):
        tokens, durations = pairs.tokens(units)
        assert durations.sum() == len(units) == len(frames) and durations.min() >= 1
        np.testing.assert_array_equal(np.repeat(tokens, durations), frames)
        # each token stands over the frames of its own units
        starts = np.cumsum(durations) - durations
        for token, start, count in zip(tokens, starts, durations, strict=True):
            stretch = [unit for unit, _ in groupby(units[start : start + count].tolist())]
            assert stretch == pairs.bpe.decode(np.array([token])).tolist()
    assert pairs.spec.units == len(pairs.bpe) and pairs.spec.hop == pairs.tokenizer.spec.hop == 320


def test_two_equal_tokens_stay_two():
    rows = [np.array([0, 1, 0, 1, 2, 0, 1], np.int32)] * 2
    pairs = BytePairTokenizer(drawn_tokenizer(), UnitBPE.train(rows, units=UNITS, vocabulary=UNITS + 1))
    tokens, durations = pairs.tokens(np.array([0, 0, 1, 0, 1, 1, 3], np.int32))
    assert tokens.tolist() == [UNITS, UNITS, 3] and durations.tolist() == [3, 3, 1]
    assert UnitSequences(pairs).of_units(np.array([0, 0, 1, 0, 1, 1, 3], np.int32)).tolist() == [UNITS, UNITS, 3]


def test_no_units_have_no_tokens(made):
    tokens, durations = made["bpe"].tokenizer.tokens(np.zeros(0, np.int32))
    assert len(tokens) == len(durations) == 0


def test_what_does_not_fit_is_refused(made):
    other = UnitBPE.train([np.array([0, 1], np.int32)], units=UNITS + 1, vocabulary=UNITS + 1)
    with pytest.raises(UserError, match=r"units of the byte pairs is 9: the tokenizer makes 8"):
        BytePairTokenizer(drawn_tokenizer(), other)
    with pytest.raises(UserError, match="read one by one, not frame by frame"):
        UnitSequences(made["bpe"].tokenizer, runs=False)
