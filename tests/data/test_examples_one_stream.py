"""Documents of text and units: forms and back, words in turns, several streams sorted by time, what does not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn
from slm_jax.data.examples.one_stream import (
    Document,
    DocumentExample,
    OneStream,
    StreamOf,
    WordTurns,
    parsed,
    rendered,
)
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig
from slm_jax.layouts.interleaved import ByRatio, WordSpans
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import SpecialsConfig

MARKS = ("[Text]", "[Speech]", "<sosp>", "<eosp>")
PLAIN = SpecialsConfig().make()
RATE = 16_000


def stream(*streams, marks=MARKS, **ranges):
    vocabulary = ExpandedVocabulary(text=259, specials=marks, ranges=tuple(ranges.items()))
    return OneStream(JointTokens(PLAIN, vocabulary), streams)


ONE = stream(StreamOf("units", "units", 10.0), units=10)
FIRST = 259 + len(MARKS)
UNITS = np.array([1, 1, 2, 2, 2, 3, 4, 4, 5, 6])
ITEM = {
    "id": "x",
    "text": "So it is.",
    "words": ["so", "it", "is"],
    "word_start_s": np.array([0.0, 0.2, 0.6]),
    "word_end_s": np.array([0.2, 0.5, 1.0]),
    "word_turn": np.zeros(3, int),
    "units": UNITS,
    "messages": (Turn("user", "So it is.", start_s=0.0, end_s=1.0),),
}
ASKED = {
    "id": "y",
    "text": "Who? Tom.",
    "samples": np.zeros(RATE, np.int16),
    "units": np.array([7, 7, 8, 9, 9, 0]),
    "units_counts": np.array([3, 3]),
    "messages": (
        Turn("user", "Who?", start_s=0.0, end_s=0.3),
        Turn("user", "Notes: Tom."),
        Turn("assistant", "Tom.", start_s=0.5, end_s=0.8, answer="Tom"),
    ),
}


def ids_of(*pieces):
    """Text as bytes, marks by name, units by number."""
    found = []
    for piece in pieces:
        found += [FIRST + piece] if isinstance(piece, int) else ONE.tokens.encode_marked(piece)
    return found


def made(document, item=ITEM, of=ONE, seed=0):
    return document.row(item, of, np.random.default_rng(seed))


def test_a_form_is_filled_with_words_and_with_units_that_differ_from_the_one_before():
    row = made(Document(prompt=("[Speech]{speech}",), answer="[Text] {text}"))
    assert row.ids.tolist() == ids_of("<s>[Speech]", 1, 2, 3, 4, 5, 6, "[Text] So it is.</s>")
    assert row.weight.tolist() == [1.0] + [0.0] * 7 + [1.0] * 12
    half = made(Document(prompt=("[Speech]{speech}",), answer="[Text] {text}", prompt_weight=0.5))
    assert set(half.weight[1:8].tolist()) == {0.5}


def test_questions_and_answers_are_the_turns_and_what_is_written_beside_them():
    task = AnsweredTaskConfig(kinds=None)
    form = Document(prompt=("{asked_speech} {written}",), answer="{asked}>{answered}<sosp>{answered_speech}", task=task)
    row = made(form, ASKED)
    assert row.ids.tolist() == ids_of("<s>", 7, 8, " Notes: Tom.", "Who?>Tom.<sosp>", 9, 0, "</s>")
    assert made(form, ITEM) is None
    assert made(Document(answer="{answered_speech}"), ASKED | {"units_counts": np.array([6, 0])}).ids.tolist() == [1, 2]
    silent = (*ASKED["messages"][:2], Turn("assistant", "Tom."))
    assert made(form, ASKED | {"messages": silent}) is None
    cut = {name: value for name, value in ASKED.items() if name != "units_counts"}
    assert made(Document(answer="{asked_speech}"), cut).ids.tolist() == ids_of("<s>", 7, 8, "</s>")


@pytest.mark.parametrize("cut", range(12))
def test_replies_are_taken_apart_however_early_they_end(cut):
    form = "{asked}; [ta] {answered}; [ua] <sosp>{answered_speech}<eosp><eoa>"
    units = np.arange(FIRST, FIRST + 5, dtype=np.int32)
    fields = {"asked": "Who?", "answered": "Tom; or so.", "answered_speech": units}
    ids = rendered(ONE.tokens, form, fields)
    found = parsed(ONE.tokens, form, ids[: len(ids) - cut])
    assert (found["asked"], found["answered"]) == ("Who?", "Tom; or so.")
    if cut < 11:
        np.testing.assert_array_equal(found["answered_speech"], units[: 5 - max(0, cut - 6)])
    else:
        assert "answered_speech" not in found


@given(st.text(alphabet="ab .", max_size=8), st.lists(st.integers(0, 9), max_size=5))
def test_parsed_is_the_inverse_of_rendered(text, units):
    fields = {"text": text, "speech": np.array(units, np.int32) + FIRST}
    found = parsed(ONE.tokens, "{text}<sosp>{speech}<eosp>", rendered(ONE.tokens, "{text}<sosp>{speech}<eosp>", fields))
    assert found["text"] == text.strip()
    assert found.get("speech", np.zeros(0)).tolist() == fields["speech"].tolist()


def test_a_mark_that_words_spell_stays_words():
    ids = rendered(ONE.tokens, "<sosp> {text}<eosp>", {"text": "a<sosp>"})
    assert ids.tolist() == [*ids_of("<sosp> a"), *PLAIN.encode("<sosp>"), *ids_of("<eosp>")]


def test_what_does_not_look_like_the_form_gives_what_there_is():
    assert parsed(ONE.tokens, "{text}<eoa>", np.array(ids_of("so it", 4, 5, "[Text] is"))) == {"text": "so it  is"}
    assert parsed(ONE.tokens, "<sosp>{speech}<eosp>", np.array(ids_of("so"))) == {}
    assert parsed(ONE.tokens, "<sosp>{speech}<eosp>", np.zeros(0, np.int32)) == {}


def test_words_are_read_or_heard_in_turns_and_every_turn_begins_with_its_word():
    rows = {tuple(made(WordTurns(layout=WordSpans(longest_span=1)), seed=seed).ids.tolist()) for seed in range(20)}
    assert rows == {
        tuple(ids_of("<s>[Text] So[Speech]", 2, 3, "[Text] is.</s>")),
        tuple(ids_of("<s>[Speech]", 1, "[Text] it[Speech]", 4, 5, 6, "</s>")),
    }
    whole = made(WordTurns(layout=ByRatio(text=None, frames=None), before=""))
    assert (
        whole.ids.tolist() == ids_of("<s>[Text]Soitis.[Speech]", 1, 2, 3, 4, 5, 6, "</s>") and whole.weight.min() == 1
    )
    assert made(WordTurns(), {**ITEM, "words": [], "word_start_s": [], "word_end_s": [], "word_turn": []}) is None
    assert made(WordTurns(), ASKED) is None


def test_several_streams_are_sorted_by_time_and_lie_in_their_ranges():
    """By SpiRit-LM's released code: [St81][Pi13][Hu78][Hu42][Hu81][Hu159][Pi3][Hu316][Hu259]."""
    rates = (StreamOf("Hu", "hubert", 24.99), StreamOf("Pi", "pitch", 12.5), StreamOf("St", "style", 1.0, once=False))
    spirit = OneStream(
        JointTokens(
            PLAIN, ExpandedVocabulary(text=32_000, specials=MARKS[:2], ranges=(("Hu", 501), ("Pi", 64), ("St", 100)))
        ),
        rates,
    )
    item = ITEM | {
        "hubert": np.array([78, 42, 81, 159, 316, 259]),
        "pitch": np.array([13, 13, 3]),
        "style": np.array([81]),
    }
    hu, pi, st_ = (spirit.tokens.vocabulary.bounds(name)[0] for name in ("Hu", "Pi", "St"))
    assert (hu, pi, st_) == (32_002, 32_503, 32_567)
    wanted = [st_ + 81, pi + 13, hu + 78, hu + 42, hu + 81, hu + 159, pi + 3, hu + 316, hu + 259]
    row = made(Document(answer="[Speech]{speech}"), item, spirit)
    assert row.ids.tolist() == [1, 32_001, *wanted, 2]
    assert spirit.units(np.array(wanted)).tolist() == [78, 42, 81, 159, 316, 259]
    turns = made(WordTurns(layout=WordSpans(longest_span=3)), item, spirit, seed=1)
    assert set(turns.ids.tolist()) <= {1, 2, 32_000, 32_001, *range(3, 259), *wanted}


def test_a_whole_document_is_kept_or_left_out_and_others_are_read_in_windows():
    long = Document(answer="{text}", whole=True)
    assert not DocumentExample(long, ONE, 10).fits(ITEM) and DocumentExample(long, ONE, 11).fits(ITEM)
    window = DocumentExample(Document(answer="{text}"), ONE, 4)
    assert window.fits(ITEM)
    found = {tuple(window(ITEM, np.random.default_rng(seed))["ids"].tolist()) for seed in range(40)}
    assert len(found) == 8 and all(len(one) == 4 for one in found)
    assert not DocumentExample(Document(answer="{text}"), ONE, 4).fits(ITEM | {"text": ""})
    assert not DocumentExample(Document(answer="{speech}"), ONE, 4).fits({**ITEM, "units": np.zeros(0, int)})


def test_unknown_fields_and_settings_without_sense_are_refused():
    with pytest.raises(UserError, match=r"fields of '\{words\}' is \['words'\]: some of text, speech"):
        Document(answer="{words}")
    with pytest.raises(UserError, match="prompt_weight"):
        Document(answer="{text}", prompt_weight=-1.0)
    with pytest.raises(UserError, match="longest is 1"):
        DocumentExample(Document(answer="{text}"), ONE, 1)
    with pytest.raises(UserError, match=r"field of '\{text\}' is 'text': there are none"):
        rendered(ONE.tokens, "{text}", {})
