"""Text and codes of an item as rows: which words are in a stretch, where they stand, what counts how much."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.data.examples.text_code_rows import TextCodeRowsConfig
from slm_jax.layouts.beside import PaddingAfter, TimeAligned
from slm_jax.layouts.interleaved import ByRatio
from slm_jax.schemes.delay import Delay
from slm_jax.text.tokenizers import CharacterTokenizerConfig

LETTERS = CharacterTokenizerConfig(characters=" abcdefg")
PAD, WORD = 8, 9
ROWS = TextCodeRowsConfig(
    columns=("codes_0", "codes_1"),
    scheme=Delay(delays=(0, 1)),
    layout=TimeAligned(),
    tokens=LETTERS,
    frames=12,
    frames_per_second=10.0,
    text=8,
)
ITEM = {
    "words": ["ab", "c", "defg"],
    "word_start_s": np.array([0.1, 0.5, 0.9], np.float32),
    "word_end_s": np.array([0.4, 0.8, 1.6], np.float32),
    "codes_0": np.arange(100, 116),
    "codes_1": np.arange(200, 216),
}


def ids_of(text):
    return LETTERS.make().encode(text)


def test_words_stand_in_their_frames_and_books_behind_them():
    row = ROWS.from_start(ITEM | {"words": ["ab", "c", "d"]}, np.random.default_rng(0))
    text = [WORD, *ids_of(" ab"), WORD, *ids_of(" c"), PAD, WORD, *ids_of(" d"), PAD, EMPTY]
    assert row[0].tolist() == [EMPTY] * 3
    assert row[1:, 0].tolist() == text
    assert row[1:, 1].tolist() == [*range(100, 112), EMPTY] and row[1:, 2].tolist() == [EMPTY, *range(200, 212)]


def test_a_stretch_ends_before_the_word_that_has_no_room():
    """Three words would be 3 + 2 + 5 ids, where a row has room for 8."""
    said, codes = ROWS.stretch(ROWS.said(ITEM), ROWS.codes.codes(ITEM), 0)
    assert said.ids.tolist() == ids_of(" ab c") and len(codes) == 9
    said, codes = ROWS.stretch(ROWS.said(ITEM), ROWS.codes.codes(ITEM), 4)
    assert said.ids.tolist() == ids_of(" c defg") and codes[:, 0].tolist() == list(range(104, 116))


@pytest.mark.parametrize("layout", [TimeAligned(ahead=2), PaddingAfter(), ByRatio(text=2, frames=4)])
def test_an_example_is_as_long_as_the_longest_row_and_gives_all_of_it_back(layout):
    rows = ROWS.replace(layout=layout)
    found = rows.make()(ITEM, np.random.default_rng(3))
    assert {name: value.shape for name, value in found.items()} == {
        "ids": (rows.steps, 3),
        "target_weight": (rows.steps, 3),
        "mask": (rows.steps,),
    }
    row = found["ids"][found["mask"]]
    assert (found["ids"][~found["mask"]] == EMPTY).all() and (found["target_weight"][found["ids"] == EMPTY] == 0).all()
    text, codes = rows.content(row)
    start = int(codes[0, 0]) - 100
    said, stretch = rows.stretch(rows.said(ITEM), rows.codes.codes(ITEM), start)
    np.testing.assert_array_equal(text, said.ids)
    np.testing.assert_array_equal(codes, stretch)


def test_what_is_no_text_counts_as_it_is_told():
    found = ROWS.replace(padding=0.25).make()(ITEM, np.random.default_rng(0))
    text, counted = found["ids"][:, 0], found["target_weight"][:, 0]
    assert set(counted[text >= PAD].tolist()) == {0.25} and set(counted[(text >= 0) & (text < PAD)].tolist()) == {1.0}
    assert (found["target_weight"][:, 1:] == (found["ids"][:, 1:] != EMPTY)).all()


def test_words_of_other_letters_and_senseless_settings_are_refused():
    with pytest.raises(UserError, match="unknown characters 'x'"):
        ROWS.said(ITEM | {"words": ["ax", "b", "c"]})
    for field, value in (("text", 0), ("padding", -0.5), ("frames_per_second", 0.0)):
        with pytest.raises(UserError, match=f"{field} is {value}"):
            ROWS.replace(**{field: value})
