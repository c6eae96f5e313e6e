"""Items utterance by utterance: whole recordings, questions and answers, words with their times."""

import numpy as np

from slm_jax.core.messages import Turn
from slm_jax.data.examples.spoken_item import spoken_item

UNITS = (("units", 10.0),)
TURNS = (
    Turn("user", "who are you?", start_s=0.0, end_s=0.4),
    Turn("assistant", "Tom Gray.", start_s=0.6, end_s=1.0, answer="Tom"),
)
ITEM = {
    "text": "Who are you? Tom Gray.",
    "words": ["who", "are", "you", "tom", "gray"],
    "word_start_s": np.array([0.0, 0.1, 0.2, 0.6, 0.8]),
    "word_end_s": np.array([0.1, 0.2, 0.4, 0.8, 1.0]),
    "word_turn": np.array([0, 0, 0, 1, 1]),
    "units": np.arange(10),
    "messages": TURNS,
}


def test_turns_are_cut_out_of_a_whole_recording_by_their_times():
    found = spoken_item(ITEM, UNITS)
    assert found.whole.columns[0].tolist() == list(range(10)) and found.whole.words[0] == "Who"
    assert found.asked.columns[0].tolist() == [0, 1, 2, 3] and found.asked.words == ("who", "are", "you?")
    assert found.answered.columns[0].tolist() == [6, 7, 8, 9] and found.answered.words == ("Tom", "Gray.")
    np.testing.assert_allclose(found.answered.start_s, [0.0, 0.2])


def test_turns_that_were_tokenized_apart_have_no_times_as_a_whole():
    found = spoken_item(ITEM | {"units_counts": np.array([6, 4])}, UNITS)
    assert found.asked.columns[0].tolist() == [0, 1, 2, 3, 4, 5] and found.answered.columns[0].tolist() == [6, 7, 8, 9]
    assert found.whole.words == () and len(found.whole.columns[0]) == 10


def test_words_keep_the_spelling_of_the_text_where_there_are_as_many():
    other = spoken_item(ITEM | {"text": "It is 3 o'clock."}, UNITS)
    assert other.whole.words == ("who", "are", "you", "tom", "gray")
    assert spoken_item({name: ITEM[name] for name in ("text", "units", "messages")}, UNITS).whole.words == ()


def test_what_is_not_there_is_none():
    alone = spoken_item({**ITEM, "messages": TURNS[:1]}, UNITS)
    assert alone.asked is None and alone.answered is None
    written = spoken_item({**ITEM, "messages": (*TURNS[:1], Turn("user", "Say."), Turn("assistant", "Tom"))}, UNITS)
    assert written.asked.text == "who are you?" and written.answered.columns == (None,)
    assert spoken_item({"text": "", "messages": ()}, UNITS).whole.columns == (None,)


def test_a_manifest_has_times_among_its_other_keys():
    times = ("words", "word_start_s", "word_end_s")
    rest = {name: value for name, value in ITEM.items() if name not in (*times, "word_turn")}
    found = spoken_item(rest | {"extra": {name: list(ITEM[name]) for name in times}}, UNITS)
    assert found.whole.words[0] == "Who" and found.answered.words == ("Tom", "Gray.")
    np.testing.assert_allclose(found.answered.end_s, [0.2, 0.4])
