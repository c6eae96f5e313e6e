"""The id space."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.errors import UserError
from slm_jax.text.vocabulary import Vocabulary

UNITS = Vocabulary(ranges=(("units", 100), ("text", 7)))


def test_ids_by_hand():
    assert (UNITS.pad_id, UNITS.bos_id, UNITS.eos_id) == (0, 1, 2)
    assert UNITS.bounds("units") == (3, 103)
    assert UNITS.bounds("text") == (103, 110)
    assert UNITS.size == 110
    assert [UNITS.padded_size(m) for m in (1, 110, 128)] == [110, 110, 128]
    assert [UNITS.name_of(i) for i in (0, 2, 3, 102, 103)] == ["<pad>", "</s>", "units:0", "units:99", "text:0"]


@given(st.lists(st.integers(0, 99)))
def test_decode_inverts_encode(ids):
    encoded = UNITS.encode_range("units", np.array(ids, np.int32))
    decoded, mask = UNITS.decode_range("units", encoded)
    np.testing.assert_array_equal(decoded, ids)
    assert mask.all()


def test_decode_masks_what_is_not_in_the_range():
    for ids in (np.array([[1, 3, 102], [103, 2, 0]]), jnp.array([[1, 3, 102], [103, 2, 0]])):
        decoded, mask = UNITS.decode_range("units", ids)
        np.testing.assert_array_equal(mask, [[False, True, True], [False, False, False]])
        np.testing.assert_array_equal(decoded, [[0, 0, 99], [0, 0, 0]])
        assert isinstance(decoded, type(ids))


def test_traceable():
    ids = jnp.arange(5)
    there_and_back = jax.jit(lambda x: UNITS.decode_range("text", UNITS.encode_range("text", x))[0])
    np.testing.assert_array_equal(there_and_back(ids), ids)


def test_range_mask():
    allowed = UNITS.range_mask("text", "</s>", padded_to=128)
    assert allowed.shape == (128,)
    np.testing.assert_array_equal(np.flatnonzero(allowed), [2, *range(103, 110)])


def test_json_round_trip_and_hash():
    again = Vocabulary.from_json(json.loads(json.dumps(UNITS.to_json())))
    assert again == UNITS
    assert again.content_hash() == UNITS.content_hash()
    assert UNITS.replace(ranges=(("units", 50),)).content_hash() != UNITS.content_hash()


def test_difference_shows_both():
    other = UNITS.replace(ranges=(("units", 50),))
    text = UNITS.explain_difference(other)
    assert UNITS.content_hash() in text
    assert other.content_hash() in text
    assert "3..102" in text
    assert "3..52" in text
    assert UNITS.explain_difference(Vocabulary.from_json(UNITS.to_json())) == ""


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Vocabulary(specials=("<s>", "<s>")), "must differ"),
        (lambda: Vocabulary(ranges=(("<s>", 3),)), "must differ"),
        (lambda: Vocabulary(ranges=(("units", 0),)), "positive"),
        (lambda: UNITS.bounds("unit"), "did you mean 'units'"),
        (lambda: UNITS.special("<eos>"), "no special token '<eos>'"),
        (lambda: UNITS.encode_range("units", np.array([3, 100])), r"\(3, 100\): 0 to 99"),
        (lambda: UNITS.encode_range("units", jnp.array([-1])), "0 to 99"),
        (lambda: UNITS.name_of(110), "0 to 109"),
        (lambda: Vocabulary.from_json({"type": "audio.mel.LogMelConfig"}), "must be a vocabulary"),
    ],
)
def test_errors(make, message):
    with pytest.raises(UserError, match=message):
        make()
