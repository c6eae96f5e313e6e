import dataclasses
from pathlib import Path

import numpy as np
import pytest

from slm_jax.data.corpus import PHONES, WorldConfig
from slm_jax.evaluation.abx_items import Item, one_hot
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.abx import ABXJudge, items_of, scored_speech
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.serving.drawn import drawn_unit_speech_lm

SPANS = (("sil", "b", "æ", "t"), ("sil", "b", "ʊ", "t"), ("sil", "b", "æ", "t", "sil"))
SPEAKERS = ("ann", "ann", "bob")
STEP_S = 0.1


def item(number, **more):
    phones, steps = SPANS[number], np.arange(len(SPANS[number]))
    times = {"phone_start_s": steps * STEP_S, "phone_end_s": (steps + 1) * STEP_S}
    told = {"phones": list(phones), "phone_ids": [PHONES.index(phone) for phone in phones]}
    return {"id": f"utterance {number}", "speaker": SPEAKERS[number], **times, **told, **more}


@dataclasses.dataclass(frozen=True)
class InMemory(StageContext):
    """Held-out speech that no folder holds."""

    items: tuple = ()

    def source(self, split, kinds=None):
        return self.items if split == "test" else ()


def context_of(*items, say=len):
    nowhere = Path("nowhere")
    return InMemory(RunFolder(nowhere), WorldConfig(), nowhere, say=say, items=items)


class Told(ABXJudge):
    """Looks at frames that spell the phones: 10 a second, one for each phone."""

    def features(self, system, context, speech):
        ids = {row["id"]: np.array(row["phone_ids"]) for row in map(speech.__getitem__, range(len(speech)))}
        spelt = {name: one_hot(np.repeat(row, 2), len(PHONES)) for name, row in ids.items()}
        return {"spelt": (spelt, 20.0), "mute": ({name: np.ones_like(row) for name, row in spelt.items()}, 20.0)}


def test_items_hold_no_silence():
    assert items_of(item(2)) == [Item("utterance 2", STEP_S, pytest.approx(4 * STEP_S), "æ", "b", "t", "bob")]


def test_what_spells_the_phones_is_right_and_what_says_nothing_is_at_chance():
    said = []
    context = context_of(*map(item, range(3)), say=said.append)
    section = Told().judge(drawn_unit_speech_lm(), context, JudgeSettings())
    figures = section.figures["abx"]
    assert (figures["spelt"]["across"], figures["mute"]["across"]) == (0.0, 0.5)
    assert figures["spelt"]["within"] is None  # nobody says the same twice
    assert figures["spelt"]["triplets_across"] == 1 and figures["spelt"]["items"] == 3
    assert section.tables[0].header[:3] == ("", "ABX within ↓", "ABX across ↓")
    assert len(said) == 2


def test_dialogues_are_left_out_and_what_is_lacking():
    two = item(1, turns=[{}, {}])
    assert list(scored_speech(context_of(item(0), two, item(2)), 2).indices) == [0, 2]
    with pytest.raises(Lacking, match="no true phones"):
        scored_speech(context_of(), 4)
    with pytest.raises(Lacking, match="one voice alone"):
        scored_speech(context_of(two), 4)
