"""Rows of Whisper's decoder: what is learnt of them, what does not fit, and the labels of the world."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import SENTENCES, TOPICS, compose, topic
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, ComposedTaskConfig
from slm_jax.data.examples.transcribed_speech import TranscribedSpeechConfig
from slm_jax.data.examples.whisper_targets import WhisperTargets, clip_and_words, without_targets
from slm_jax.data.examples.world_labels import WorldTaskConfig, labels_of
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.whisper_tokens import PlainPromptsConfig

PROMPTS = TaskPrompts(PlainPromptsConfig().make(), ("<|rate|>",))
TURN = {"text": "Ten plus two is twelve.", "speaker": "world-1", "sound": "deep", "speaking_rate": "slow", "energy": ""}
ITEM = {"id": "one", "samples": np.arange(1, 301, dtype=np.int16), "text": TURN["text"], "turns": [TURN]}
RATE = WorldTaskConfig(asks=("<|rate|>",), answers=("{rate}",))
LETTERS = TranscribedSpeechConfig(samples=400, labels=24)
RNG = np.random.default_rng(0)


def targets(task=RATE, length=16, **changes):
    return WhisperTargets(
        **({"prompts": PROMPTS, "task": task, "rate_hz": 16_000, "clip": 400, "length": length} | changes)
    )


def test_only_what_comes_after_the_prefix_is_learnt():
    row = targets()(ITEM, RNG)
    prefix, answer = PROMPTS.prefix("<|rate|>"), PROMPTS.answer("slow")
    assert row["ids"].tolist() == [*prefix, *answer, *[0] * (16 - 9)] and len(prefix) == 4
    assert row["mask"].sum() == 9
    assert row["target_weight"].tolist() == [0.0] * 4 + [1.0] * 5 + [0.0] * 7
    assert row["ids"][8] == PROMPTS.tokens.end
    assert row["sample_mask"].sum() == 300 and row["samples"][:300].all() and not row["samples"][300:].any()
    assert "labels" not in row


def test_letters_are_those_of_what_is_said_and_of_no_label():
    spoken = AskedTaskConfig(asks=("<|transcribe|>",))
    row = targets(spoken, 64, letters=LETTERS, spelt=True)(ITEM, RNG)
    assert LETTERS.text_of(row["labels"][row["label_mask"]]) == "ten plus two is twelve"
    label = targets(letters=LETTERS)(ITEM, RNG)
    assert not label["label_mask"].any() and label["labels"].shape == row["labels"].shape
    nothing = without_targets(row)
    assert not nothing["label_mask"].any() and not nothing["target_weight"].any()
    assert nothing["mask"] is row["mask"]


PROBLEMS = {
    "no answer": (RATE.replace(answers=("{energy}",)), {}),
    "the clip is too long": (RATE, {"clip": 299}),
    "the row is too long": (RATE.replace(asks=("<|rate|>", "How fast is it?")), {}),
    "too many letters": (
        AskedTaskConfig(asks=("",)),
        {"length": 64, "letters": LETTERS.replace(labels=21), "spelt": True},
    ),
}


@pytest.mark.parametrize("reason", PROBLEMS)
def test_what_does_not_fit_is_told_and_never_cut(reason):
    task, changes = PROBLEMS[reason]
    example = targets(task, **changes)
    assert example.problem(ITEM) == reason
    worst = example if len(task.asks) == 1 else targets(task.replace(asks=task.asks[1:]), **changes)
    with pytest.raises(UserError, match=r"no answer|nothing is cut"):
        worst(ITEM, RNG)


def test_what_fits_has_no_problem_in_any_wording():
    task = RATE.replace(asks=("<|rate|>", "Fast?"), answers=("{rate}", "{rate}!"))
    assert targets(task, 3 + 5 + 6).problem(ITEM) is None
    assert targets(task, 3 + 5 + 5).problem(ITEM) == "the row is too long"
    both = ComposedTaskConfig(tasks=(AskedTaskConfig(asks=("A?",)), AskedTaskConfig(asks=("B?",))))
    assert targets(both, 80).problem(ITEM) is None


def test_a_conversation_holds_one_clip_and_words():
    clip = Speech(np.zeros(4, np.float32), 16_000)
    told = (Message("system", (Text("Listen."),)), Message("user", (Text("Slow"), clip, Text("or fast?"))))
    assert clip_and_words(told) == (clip, "Listen. Slow or fast?")
    assert clip_and_words((Message("user", (clip,)),)) == (clip, "")
    for parts in ((clip, clip), (Text("Hm?"),)):
        with pytest.raises(UserError, match="Whisper hears one"):
            clip_and_words((Message("user", parts),))


def test_the_world_labels_a_sentence():
    labels = labels_of(ITEM)
    assert {name: labels[name] for name in ("rate", "voice", "last_word", "intent")} == {
        "rate": "slow", "voice": "deep", "last_word": "twelve", "intent": "sum"}  # fmt: skip
    assert "energy" not in labels and labels_of({"turns": [TURN, TURN]}) == {}
    assert labels_of({"turns": [TURN | {"text": "Something else."}]}).get("intent") is None
    assert RATE.said(ITEM, RNG) == ("<|rate|>", "slow")


def test_every_sentence_of_the_grammar_has_one_topic():
    world, rng = make_world(0), np.random.default_rng(1)
    found = {topic(compose("sentence", world, rng).text) for _ in range(400)}
    assert found == set(TOPICS) and len(TOPICS) == len(SENTENCES)
    assert topic("Where does Anna live?") is None
