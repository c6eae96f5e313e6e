"""Rows of a speech-aware LM: nothing is cut, every clip has its entries, and who does not fit is told why."""

import dataclasses

import numpy as np
import pytest

from slm_jax.assemblies.speech_aware_lm import TEXT
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, problems, stacked
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, SpeechTaskConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import CHATML, PLAIN, QWEN2_AUDIO

RATE_HZ = 16_000
TOKENS = SpecialsConfig().make()
HOP = 1_000
LAYOUT = PromptLayout(TOKENS, PLAIN, lambda samples: samples // HOP, window=12 * HOP)


def clip(frames, value=0.5):
    return Speech(np.full(frames * HOP, value, np.float32), RATE_HZ)


def said(*parts, answer="yes"):
    user = Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))
    return (user, Message("assistant", (Text(answer),)))


class Fixed(SpeechTaskConfig):
    """The conversations of an item, one of which is drawn."""

    def conversation(self, item, rate_hz, rng):
        return item["said"][int(rng.integers(len(item["said"])))] if item["said"] else None


EXAMPLE = SpeechPromptExample(LAYOUT, Fixed(), RATE_HZ, clip=6 * HOP, length=40, clips=2)


def item(*conversations, **fields):
    return {"id": "one", "said": conversations, **fields}


def test_entries_are_words_and_frames_in_order():
    entries = LAYOUT.entries(said("a", clip(3), "b", clip(2)), answered=True)
    assert TOKENS.decode(entries.ids[entries.clip == TEXT].tolist()) == "a  b \nyes"
    assert (entries.frame == TEXT).tolist() == (entries.clip == TEXT).tolist()
    for number, count in ((0, 3), (1, 2)):
        here = entries.clip == number
        assert entries.frame[here].tolist() == list(range(count)) and not entries.ids[here].any()
        assert np.diff(np.flatnonzero(here)).tolist() == [1] * (count - 1), "a clip stands in one piece"
    assert TOKENS.decode(entries.ids[entries.learnt].tolist()) == "yes" and entries.ids[-1] == LAYOUT.end_id == 2
    assert entries.learnt.sum() == 4 and not entries.learnt[:-4].any()


def test_the_words_of_a_task_count_as_often_as_it_says():
    plain, heavy = (
        dataclasses.replace(EXAMPLE, task=Fixed(counts=counts))(item(said(clip(3))), np.random.default_rng(0))
        for counts in (1.0, 6.0)
    )
    assert plain.pop("target_weight").sum() == 4 and heavy.pop("target_weight").tolist().count(6.0) == 4
    assert all((plain[name] == heavy[name]).all() for name in plain)
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="counts is"):
            Fixed(counts=wrong)


def test_all_words_may_be_learnt_but_no_speech():
    entries = dataclasses.replace(LAYOUT, targets="all").entries(said("a", clip(3)), answered=True)
    assert (entries.learnt == (entries.clip == TEXT)).all()
    with pytest.raises(UserError, match="targets is 'some'"):
        dataclasses.replace(LAYOUT, targets="some")


def test_a_question_is_a_beginning_of_its_answer():
    conversation = said("a", clip(3))
    asked, whole = LAYOUT.entries(conversation[:-1], False), LAYOUT.entries(conversation, True)
    for mine, theirs in zip(asked, whole, strict=True):
        np.testing.assert_array_equal(mine, theirs[: len(mine)])
    assert not asked.learnt.any() and whole.learnt[len(asked.ids) :].all()


def test_a_template_of_other_tokens_is_refused():
    for template in (CHATML, QWEN2_AUDIO):
        with pytest.raises(UserError, match=r"ids of '<\|im_end\|>' is \["):
            dataclasses.replace(LAYOUT, template=template)
    marks = SpecialsConfig(specials=("<pad>", "<|im_start|>", "<|im_end|>"))
    assert dataclasses.replace(LAYOUT, template=CHATML, tokens=marks.make()).end_id == 2


@pytest.mark.parametrize(
    ("frames", "reason", "told"),
    [
        (12, None, None),
        (13, "a clip is longer than what is heard at once", r"clip 2 of 0.812 s: .*; at most 0.75 s at once"),
        (0.5, "a clip is so short that no frame comes of it", "clip 2 of 0.0312 s: a clip is so short"),
        (0, "a clip is so short that no frame comes of it", "clip 2 of 0 s"),
    ],
)
def test_what_cannot_be_heard_is_refused_with_the_reason(frames, reason, told):
    other = Speech(np.zeros(round(frames * HOP), np.float32), RATE_HZ)
    assert LAYOUT.problem(len(other.samples)) == reason
    if told is None:
        assert (LAYOUT.entries(said(clip(1), other), True).clip == 1).sum() == 12
        return
    with pytest.raises(UserError, match=told):
        LAYOUT.entries(said(clip(1), other), answered=True)


def test_a_row_holds_what_was_said():
    example = EXAMPLE(item(said("ab", clip(3, 0.25), clip(6))), np.random.default_rng(0))
    shapes = {name: (value.shape, value.dtype.name) for name, value in example.items()}
    assert shapes == {
        "samples": ((2, 6 * HOP), "float32"),
        "sample_mask": ((2, 6 * HOP), "bool"),
        "ids": ((40,), "int32"),
        "speech_at": ((40,), "int32"),
        "mask": ((40,), "bool"),
        "target_weight": ((40,), "float32"),
    }
    assert example["sample_mask"].sum(1).tolist() == [3 * HOP, 6 * HOP]
    assert [set(row[real]) for row, real in zip(example["samples"], example["sample_mask"], strict=True)] == [
        {0.25},
        {0.5},
    ]
    at = example["speech_at"]
    assert at[at != TEXT].tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 11], "the second clip begins after room for the first"
    real = example["mask"].sum()
    assert example["mask"][:real].all() and (at[real:] == TEXT).all() and not example["ids"][real:].any()
    assert example["target_weight"].sum() == 4 and not example["target_weight"][real:].any()


def test_features_take_the_place_of_samples():
    layout = dataclasses.replace(LAYOUT, frames_out=lambda samples: samples // HOP // 2)
    example = dataclasses.replace(EXAMPLE, layout=layout, frames=(6,))
    features = np.arange(14, dtype=np.float32).reshape(7, 2)
    one = item(said("ab", clip(3), clip(4)), features=features, counts=np.array([3, 4]))
    found = example(one, np.random.default_rng(0))
    assert "samples" not in found and found["features"].shape == (2, 6, 2)
    assert found["feature_mask"].sum(1).tolist() == [3, 4]
    np.testing.assert_array_equal(found["features"][found["feature_mask"]], features)
    assert found["speech_at"][found["speech_at"] != TEXT].tolist() == [0, 3, 4]
    without = item(said("no clip"), features=np.zeros((0, 2), np.float32), counts=np.zeros(0, np.int32))
    found = example(without, np.random.default_rng(0))
    assert (
        found["features"].shape == (2, 6, 2) and not found["feature_mask"].any() and (found["speech_at"] == TEXT).all()
    )


REFUSED = {
    "no answer": item(),
    "more than 2 clips": item(said(clip(1), clip(1), clip(1))),
    "a clip is longer than 0.375 s": item(said(clip(7))),
    "a clip is so short that no frame comes of it": item(said(clip(0))),
    "the row is longer than 40 entries": item(said("so many words that no row holds them all", clip(1))),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_who_does_not_fit_is_told_why_and_never_cut(reason):
    assert EXAMPLE.problem(REFUSED[reason]) == reason
    with pytest.raises(UserError, match=f"item 'one': {reason}; nothing is cut"):
        EXAMPLE(REFUSED[reason], np.random.default_rng(0))


def test_all_items_are_looked_at_once():
    good = item(said("ab", clip(2)))
    kept, reasons = problems(EXAMPLE, [good, *REFUSED.values(), good, REFUSED["no answer"]])
    assert kept == [0, 6]
    assert reasons == dict.fromkeys(REFUSED, 1) | {"no answer": 2}
    assert stacked([EXAMPLE(good, np.random.default_rng(0))] * 3)["ids"].shape == (3, 40)


def test_a_wording_that_does_not_fit_gives_way_to_the_one_that_was_looked_at():
    short, long = said("ab", clip(2)), said("a wording that is longer than all of the row", clip(2))
    first = int(np.random.default_rng(0).integers(2))
    one = item(*((short, long) if first == 0 else (long, short)))
    assert EXAMPLE.problem(one) is None
    drawn = [EXAMPLE(one, np.random.default_rng(seed))["mask"].sum() for seed in range(8)]
    assert set(drawn) == {len(LAYOUT.entries(short, True).ids)}
    assert EXAMPLE.problem(item(*one["said"][::-1])) == "the row is longer than 40 entries"


def test_a_field_that_only_some_wordings_need_may_be_missing():
    task = AskedTaskConfig(asks=("ab",), answers=("{text}", "{energy}"))
    one = {"id": "one", "samples": clip(2).samples, "text": "hi"}
    example = dataclasses.replace(EXAMPLE, task=task)
    if example.problem(one) is None:
        rows = [example(one, np.random.default_rng(seed))["ids"].tolist() for seed in range(6)]
        assert all(row == rows[0] for row in rows)
    else:
        assert example.problem(one) == "no answer"
