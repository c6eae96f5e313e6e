"""Items as conversations: what is asked, what is heard, what is answered."""

import itertools

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Speech, Text, Turn
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import reply
from slm_jax.data.corpora.world_voice import the_voice
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig, ComposedTaskConfig, SpeechTaskConfig
from slm_jax.data.examples.spoken_tasks import SpeakersConfig, SpokenTaskConfig, sentences
from slm_jax.data.examples.wordings import POOL, wordings
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.text.templates import clips_of

RATE_HZ = 16_000
SAMPLES = np.arange(32_000, dtype=np.float32) / 32_000
QUESTION = "Where does Anna live?"
ITEM = {
    "id": "one",
    "samples": SAMPLES,
    "text": "The red cat sleeps.",
    "energy": "soft",
    "extra": {"german": "Die rote Katze schläft."},
    "messages": (
        Turn("user", "The red cat sleeps.", start_s=0.0, end_s=1.0),
        Turn("user", "Is it soft or loud?"),
        Turn("assistant", "It is soft.", answer="soft"),
    ),
}
ASKED = AskedTaskConfig(asks=("Loud?",), answers=("It is {energy}.",))


def drawn(task, item=ITEM, seed=0):
    return task.conversation(item, RATE_HZ, np.random.default_rng(seed))


def spelt(conversation):
    """`user [32000] Loud? | assistant It is soft.`"""
    if conversation is None:
        return None
    parts = lambda message: (f"[{len(p.samples)}]" if isinstance(p, Speech) else p.text for p in message.parts)  # noqa: E731
    return " | ".join(" ".join((message.role, *parts(message))) for message in conversation)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (AskedTaskConfig(asks=()), "user [32000] | assistant The red cat sleeps."),
        (AskedTaskConfig(asks=("<|asr|>",), before=True), "user <|asr|> [32000] | assistant The red cat sleeps."),
        (ASKED, "user [32000] Loud? | assistant It is soft."),
        (AskedTaskConfig(asks=("So?",), answers=("{german}",)), "user [32000] So? | assistant Die rote Katze schläft."),
        (AskedTaskConfig(asks=("Last?",), answers=("{last_word}",)), "user [32000] Last? | assistant sleeps"),
        (AskedTaskConfig(asks=("Count?",), answers=("{word_count} words",)), "user [32000] Count? | assistant 4 words"),
        (AskedTaskConfig(answers=("{mood}",)), None),
        (AnsweredTaskConfig(), "user [16000] Is it soft or loud? | assistant It is soft."),
        (AnsweredTaskConfig(asks=("Well?",)), "user [16000] Is it soft or loud? Well? | assistant It is soft."),
        (
            ComposedTaskConfig(tasks=(AskedTaskConfig(), ASKED)),
            "user [32000] Write down what is said. Then: Loud? | assistant The red cat sleeps. It is soft.",
        ),
        (ComposedTaskConfig(tasks=(AskedTaskConfig(), AskedTaskConfig(answers=("{mood}",)))), None),
        (WrittenTaskConfig(task=ASKED), "user The red cat sleeps. Loud? | assistant It is soft."),
        (
            WrittenTaskConfig(task=AnsweredTaskConfig()),
            "user The red cat sleeps. Is it soft or loud? | assistant It is soft.",
        ),
    ],
)  # fmt: skip
def test_what_is_read_and_answered(task, told):
    assert spelt(drawn(task)) == told
    assert from_json(task.to_json()) == task


def test_wordings_are_drawn_and_clips_are_not():
    task = AskedTaskConfig(asks=wordings("energy"), answers=("{energy}", "It is {energy}."))
    found = [drawn(task, seed=seed) for seed in range(40)]
    asked = {said[0].parts[1].text for said in found}
    assert asked == set(wordings("energy")) and {said[1].text for said in found} == {"soft", "It is soft."}
    assert all(np.array_equal(clips_of(said)[0].samples, SAMPLES) for said in found)


@pytest.mark.parametrize(
    ("task", "key"),
    [
        (AskedTaskConfig(), ""),
        (ASKED, "soft"),
        (AskedTaskConfig(answers=("{energy}", "{energy}, as in {text}")), "soft"),
        (AskedTaskConfig(answers=("{energy} {german}",)), ""),
        (AnsweredTaskConfig(), "soft"),
        (WrittenTaskConfig(task=ASKED), "soft"),
        (SpokenTaskConfig(task=ASKED), "soft"),
        (SpeechTaskConfig(), ""),
    ],
)
def test_the_word_that_a_right_answer_holds(task, key):
    assert task.key(ITEM) == key


def test_written_words_may_stand_several_times_in_a_row():
    task = WrittenTaskConfig(task=AskedTaskConfig(asks=("Repeat.",)), stutter=3)
    heard = {drawn(task, seed=seed)[0].parts[0].text for seed in range(20)}
    assert len(heard) > 10
    for text in heard:
        runs = [(word, len(list(run))) for word, run in itertools.groupby(text.split())]
        assert " ".join(word for word, _ in runs) == ITEM["text"] and max(count for _, count in runs) <= 3
    said = drawn(task)
    assert said[0].parts[1].text == "Repeat." and said[1].parts[0].text == ITEM["text"]
    with pytest.raises(UserError, match="stutter"):
        WrittenTaskConfig(task=ASKED, stutter=0)


def test_items_without_an_answer_have_none():
    assert drawn(AnsweredTaskConfig(), {**ITEM, "messages": ITEM["messages"][:2]}) is None
    assert drawn(AnsweredTaskConfig(), {**ITEM, "messages": ITEM["messages"][2:]}) is None
    assert drawn(WrittenTaskConfig(task=ASKED), {**ITEM, "text": ""}) is None
    silent = (Turn("user", start_s=0.0, end_s=1.0), *ITEM["messages"][1:])
    assert drawn(WrittenTaskConfig(task=AnsweredTaskConfig()), {**ITEM, "messages": silent}) is None
    with pytest.raises(TypeError, match="makes no conversations"):
        drawn(SpeechTaskConfig())
    with pytest.raises(UserError, match="at least two"):
        ComposedTaskConfig(tasks=(ASKED,))


def test_two_channels_are_heard_together():
    stereo = np.stack([SAMPLES, -SAMPLES], axis=1)
    assert not clips_of(drawn(ASKED, {**ITEM, "samples": stereo}))[0].samples.any()
    loud = (32767 * SAMPLES).astype(np.int16)
    np.testing.assert_allclose(clips_of(drawn(ASKED, {**ITEM, "samples": loud}))[0].samples, SAMPLES, atol=1e-4)


def open_book_item(question):
    known = reply(make_world(0), question)
    turns = (Turn("user", question, start_s=0.0, end_s=1.0), Turn("assistant", known[0], answer=known[1]))
    return {**ITEM, "question": question, "text": question, "messages": turns}


def test_notes_hold_the_answer_among_others_and_stay_the_same():
    task, one = OpenBookTaskConfig(others=3), open_book_item(QUESTION)
    said = drawn(task, one)
    notes = said[0].parts[1].text
    assert notes.startswith("Notes: ") and notes.endswith("Answer the question.")
    assert notes.count(".") == 5 and said[1].text in notes
    assert spelt(drawn(task, one, seed=9)) == spelt(said)
    written = WrittenTaskConfig(task=task)
    assert spelt(drawn(written, one)) == f"user {QUESTION} {notes} | assistant {said[1].text}"
    assert drawn(task, {**one, "question": "What is this?"}) is None


def test_a_mixture_says_how_often_each_task_comes():
    heard = PartConfig(name="asr", weight=3.0, example=AskedTaskConfig())
    read = PartConfig(name="text", weight=1.0, example=WrittenTaskConfig(task=ASKED))
    mixture = MixtureConfig(parts=(heard, read))
    assert from_json(mixture.to_json()) == mixture
    assert [weight for _, weight in mixture.sources([ITEM], {})] == [3.0, 1.0]


def test_kinds_of_a_task_made_of_others_are_theirs():
    inner = AnsweredTaskConfig(kinds=("instruction",))
    for task in (WrittenTaskConfig(task=inner), SpokenTaskConfig(task=inner)):
        assert task.reads == ("instruction",)
        assert task.replace(kinds=("dialogue",)).reads == ("dialogue",)
    assert ComposedTaskConfig(tasks=(ASKED.replace(kinds=("sentence",)), ASKED)).reads == ("sentence",)


def test_the_pool_has_many_ways_to_ask():
    for task, forms in POOL.items():
        assert len(forms) >= 6 and len(set(forms)) == len(forms), task
        assert all(form == form.strip() and form[-1] in ".?" for form in forms), task
    assert wordings("translation", language="German")[0] == "Translate what is said into German."
    with pytest.raises(UserError, match=r"task is 'transcript': .* \(did you mean 'transcription'\?\)"):
        wordings("transcript")
    with pytest.raises(UserError, match="wordings of 'translation' need a field 'language'"):
        wordings("translation")


SPOKEN = SpokenTaskConfig(task=ASKED.replace(asks=("Is it loud?", "How loud is it?")), speakers=SpeakersConfig(count=3))


def test_an_instruction_may_be_spoken():
    """Two clips, the recording and the instruction; the same item sounds the same whoever draws."""
    said = drawn(SPOKEN)
    first, second = clips_of(said)
    assert said[0].kinds == {"speech"} and spelt(said).endswith("assistant It is soft.")
    assert np.array_equal(first.samples, SAMPLES) and 0.4 < second.seconds < 2.5 and second.rate_hz == RATE_HZ
    assert 0.05 < np.abs(second.samples).max() <= 1.0
    np.testing.assert_array_equal(clips_of(drawn(SPOKEN, seed=7))[1].samples, second.samples)
    asked = {SPOKEN.words({**ITEM, "id": str(number)}) for number in range(12)}
    assert asked == {("The red cat sleeps.", "Is it loud?"), ("The red cat sleeps.", "How loud is it?")}
    sounds = {clips_of(drawn(SPOKEN, {**ITEM, "id": str(number)}))[1].samples.tobytes() for number in range(12)}
    assert 3 < len(sounds) <= 6, "two wordings by three speakers"


def test_what_is_spoken_can_be_written_again():
    written = WrittenTaskConfig(task=SPOKEN)
    words = SPOKEN.words(ITEM)
    assert spelt(drawn(written)) == f"user {' '.join(words)} | assistant It is soft."
    before = SPOKEN.replace(task=SPOKEN.task.replace(before=True))
    assert before.words(ITEM) == words[::-1]
    assert [len(clip.samples) for clip in clips_of(drawn(before))][1] == len(SAMPLES)
    assert SPOKEN.words({**ITEM, "text": None}) is None


def test_what_is_too_long_to_be_heard_is_not_written_either():
    seconds = max(clip.seconds for clip in clips_of(drawn(SPOKEN)))
    for longest_s, there in ((seconds, True), (seconds - 1e-3, False)):
        written = WrittenTaskConfig(task=SPOKEN, longest_s=longest_s)
        assert (written.conversation(ITEM, RATE_HZ, np.random.default_rng(0)) is not None) == there


def test_several_sentences_are_spoken_with_pauses():
    speakers = SpeakersConfig(count=1)
    one, other = (len(speakers.spoken(text, 0, RATE_HZ)) for text in ("Listen.", "How loud is it?"))
    both = speakers.spoken("Listen. How loud is it?", 0, RATE_HZ)
    assert len(both) == pytest.approx(one + other + 4_000, abs=2)
    assert not both.flags.writeable and speakers.spoken("Listen.", 5, RATE_HZ) is speakers.spoken("Listen.", 0, RATE_HZ)
    with pytest.raises(UserError, match="count is 0"):
        SpeakersConfig(count=0)


def test_every_wording_can_be_spoken():
    """The voice refuses words that do not pair with their sounds; nothing is synthesised here."""
    for task in POOL:
        for text in wordings(task, **({"language": "German"} if task == "translation" else {})):
            for sentence in sentences(text):
                (symbols,) = the_voice()._tts.phonemize(sentence)
                assert len(symbols.split(" ")) == len(sentence.split()), sentence


def test_text_of_a_message_is_not_spoken_twice():
    said = drawn(SpokenTaskConfig(task=AnsweredTaskConfig(asks=("Well?",)), speakers=SpeakersConfig(count=1)))
    assert len(clips_of(said)) == 3 and all(not isinstance(part, Text) for part in said[0].parts)
