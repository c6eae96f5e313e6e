import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.errors import UserError
from slm_jax.token_compression.bpe import MAX_UNITS, UnitBPE

UNITS = 50


def speechlike(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random walks over a sparse graph, so that some pairs are frequent."""
    rng = np.random.default_rng(seed)
    following = rng.integers(0, UNITS, (UNITS, 3))
    rows = []
    for _ in range(count):
        row = [int(rng.integers(UNITS))]
        for _ in range(int(rng.integers(5, 60))):
            row.append(int(following[row[-1], rng.integers(3)]))
        rows.append(np.asarray(row, np.int32))
    return rows


BPE = UnitBPE.train(speechlike(80), units=UNITS, vocabulary=200)


@given(st.lists(st.integers(0, UNITS - 1), max_size=80))
def test_decode_is_the_exact_inverse_for_any_sequence(row):
    ids = np.asarray(row, np.int32)
    tokens = BPE.encode(ids)
    assert tokens.dtype == np.int32
    decoded = BPE.decode(tokens)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, ids)


def test_speechlike_rows_get_shorter():
    rows = speechlike(30, seed=0)
    tokens = [BPE.encode(row) for row in rows]
    assert len(BPE) == 200
    assert sum(map(len, tokens)) < 0.7 * sum(map(len, rows))
    assert all(token.max() < len(BPE) for token in tokens)
    for row, found in zip(rows, tokens, strict=True):
        assert BPE.token_lengths()[found].sum() == len(row)


def test_low_tokens_are_the_units_themselves():
    np.testing.assert_array_equal(BPE.decode(np.arange(UNITS)), np.arange(UNITS))
    assert (BPE.token_lengths()[:UNITS] == 1).all()
    assert (BPE.token_lengths()[UNITS:] > 1).all()


def test_merges_never_cross_utterances():
    ends = [np.asarray([1, 2]), np.asarray([3, 4])] * 50  # 2 is always followed by 3, but in the next utterance
    bpe = UnitBPE.train(ends, units=5, vocabulary=20)
    learned = [bpe.decode(np.asarray([token])).tolist() for token in range(5, len(bpe))]
    assert learned == [[1, 2], [3, 4]]


def test_unseen_units_and_empty_rows():
    bpe = UnitBPE.train([np.asarray([0, 1, 0, 1])], units=10, vocabulary=12)
    np.testing.assert_array_equal(bpe.decode(bpe.encode(np.asarray([9, 8, 0, 1]))), [9, 8, 0, 1])
    assert bpe.encode(np.zeros(0, np.int32)).shape == bpe.decode(np.zeros(0, np.int32)).shape == (0,)


def test_many_units_across_both_private_planes():
    rng = np.random.default_rng(0)
    units = 70_000
    rows = [np.concatenate([rng.integers(0, units, 5), [65_533, 65_534, 65_535]]) for _ in range(10)]
    bpe = UnitBPE.train(rows, units=units, vocabulary=units + 5)
    assert len(bpe) > units
    for row in rows:
        np.testing.assert_array_equal(bpe.decode(bpe.encode(row)), row)
    np.testing.assert_array_equal(
        bpe.encode(np.asarray([0, 65_533, 65_540, units - 1])), [0, 65_533, 65_540, units - 1]
    )


def test_training_is_deterministic_and_survives_a_file(tmp_path):
    again = UnitBPE.train(speechlike(80), units=UNITS, vocabulary=200)
    assert again.content_hash() == BPE.content_hash()
    assert UnitBPE.train(speechlike(80, seed=1), units=UNITS, vocabulary=200).content_hash() != BPE.content_hash()
    BPE.save(tmp_path / "bpe.json")
    loaded = UnitBPE.load(tmp_path / "bpe.json")
    assert (loaded.units, len(loaded), loaded.content_hash()) == (UNITS, 200, BPE.content_hash())
    for row in speechlike(10, seed=5):
        np.testing.assert_array_equal(loaded.encode(row), BPE.encode(row))


@pytest.mark.parametrize("longest", [2, 3, 5])
def test_longest_token(longest):
    bpe = UnitBPE.train(speechlike(80), units=UNITS, vocabulary=300, longest=longest)
    assert bpe.token_lengths().max() == longest


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": 9}), json.dumps({"format": 1, "units": 2})])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "bpe.json").write_text(text)
    with pytest.raises(UserError):
        UnitBPE.load(tmp_path / "bpe.json")


@pytest.mark.parametrize("unit", [-1, UNITS])
def test_units_out_of_range(unit):
    with pytest.raises(UserError, match=str(unit)):
        BPE.encode(np.asarray([0, unit]))
    with pytest.raises(UserError, match=str(unit)):
        UnitBPE.train([np.asarray([0, unit])], units=UNITS, vocabulary=60)
    with pytest.raises(UserError, match="token"):
        BPE.decode(np.asarray([len(BPE)]))


@pytest.mark.parametrize("options", [{"units": 0}, {"units": MAX_UNITS + 1}, {"vocabulary": 9}, {"longest": 1}])
def test_sizes_out_of_range(options):
    with pytest.raises(UserError, match=next(iter(options))):
        UnitBPE.train([], **({"units": 10, "vocabulary": 20} | options))
