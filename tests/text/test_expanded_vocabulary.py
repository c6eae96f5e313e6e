"""Names for the ids after a text table."""

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary

VOCABULARY = ExpandedVocabulary(text=100, specials=("<speech>", "</speech>"), ranges=(("units", 50), ("tasks", 4)))


def test_new_ids_follow_the_text_in_order():
    assert [VOCABULARY.special(name) for name in ("<speech>", "</speech>")] == [100, 101]
    assert [VOCABULARY.bounds(name) for name in ("text", "units", "tasks")] == [(0, 100), (102, 152), (152, 156)]
    assert (VOCABULARY.size, VOCABULARY.extra) == (156, 56)
    assert VOCABULARY.ids.name_of(103) == "units:1"


def test_ids_go_there_and_back():
    units = np.array([0, 49])
    ids = VOCABULARY.encode_range("units", units)
    assert ids.tolist() == [102, 151]
    back, inside = VOCABULARY.decode_range("units", np.array([5, 102, 151, 155]))
    assert back.tolist() == [0, 0, 49, 0] and inside.tolist() == [False, True, True, False]
    mask = VOCABULARY.range_mask("text", "</speech>", padded_to=160)
    assert mask.shape == (160,) and mask.sum() == 101 and mask[101] and not mask[100]


def test_it_travels_as_json_and_bad_names_are_refused():
    assert from_json(VOCABULARY.to_json()) == VOCABULARY
    with pytest.raises(UserError, match="must differ"):
        ExpandedVocabulary(text=10, specials=("text",))
    with pytest.raises(UserError, match="nothing to expand by"):
        ExpandedVocabulary(text=10)
    with pytest.raises(UserError, match="rows of the text table"):
        ExpandedVocabulary(text=0, specials=("<a>",))
    with pytest.raises(UserError, match=r"special is '<x>': must be one of <speech>, </speech>"):
        VOCABULARY.special("<x>")
    with pytest.raises(UserError, match=r"no range 'unit' \(did you mean 'units'\?\)"):
        VOCABULARY.bounds("unit")
