import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech, Text, written
from slm_jax.evaluation.section import Lacking
from slm_jax.judges.asking import at_rate, items_of, kinds_there, replies_to, require_kinds_of_parts, text_of, turned
from slm_jax.training.kept import keep_speech
from slm_jax.training.run_folder import RunFolder
from tests.judges.listeners import RATE_HZ, TEXTS, Listener, tone


class Drawing:
    """Replies with the words it reads and a number that it draws; notes how many it is asked at once."""

    def __init__(self):
        self.asked = []

    def respond(self, conversations, decoding, key):
        self.asked.append(len(conversations))
        drawn = [int(jax.random.randint(one, (), 0, 1_000_000)) for one in key]
        pairs = zip(conversations, drawn, strict=True)
        return [Reply((Message("assistant", (Text(f"{one[0].text} {number}"),)),), {}) for one, number in pairs]


def test_replies_come_in_order_each_place_with_a_key_of_its_own():
    system, names = Drawing(), [f"n{i}" for i in range(11)]
    said = [text_of(one).split() for one in replies_to(system, [written(name) for name in names])]
    assert system.asked == [8, 3] and [name for name, _ in said] == names
    assert len({number for _, number in said}) == 11
    again = [text_of(one).split() for one in replies_to(system, [written("other")] * 11)]
    assert [number for _, number in again] == [number for _, number in said]
    assert replies_to(system, []) == []


def test_clips_come_at_the_rate_of_the_system():
    words, clip = Text("so"), Speech(tone(3), RATE_HZ)
    (message,) = at_rate((Message("user", (clip, words)),), 2 * RATE_HZ)
    assert message.parts[1] is words and message.speech[0].rate_hz == 2 * RATE_HZ
    assert len(message.speech[0].samples) == 2 * len(clip.samples)
    assert at_rate((Message("user", (clip,)),), RATE_HZ)[0].parts[0] is clip


def test_all_written_parts_of_a_reply_are_its_text():
    silent = Message("assistant", (Speech(np.zeros(4, np.float32), 8_000),))
    parts = (Message("assistant", (Text("a"), Text("b"))), silent, Message("assistant", (Text("c"),)))
    assert text_of(Reply(parts, {})) == "a b c" and text_of(Reply((silent,), {})) == ""


def test_nothing_stays_in_its_place():
    assert turned([1, 2, 3]) == [2, 3, 1]


def test_what_a_run_folder_keeps_is_asked_and_named(context, tmp_path):
    kept = dataclasses.replace(context, run=RunFolder(tmp_path), kept=True)
    keep_speech(kept.run, context.source, (8_000,), "hash")
    assert kinds_there(kept) == kinds_there(context) == ("recording",)
    some = items_of(kept, ("recording",), 3, lambda item: item["id"] != "1")
    assert [item["text"] for item in some] == [TEXTS[0], TEXTS[2], TEXTS[3]]
    with pytest.raises(Lacking, match=r"kind dialogue are not there: the run folder keeps \(`keeps` says what\) rec"):
        items_of(kept, ("recording", "dialogue"), 3, lambda item: True)


def test_what_a_system_cannot_do_is_one_sentence():
    require_kinds_of_parts(Listener(TEXTS), reads=("speech", "text"), writes=("text",))
    with pytest.raises(Lacking, match="the system reads no speech and no text"):
        require_kinds_of_parts(Listener(TEXTS, reads=frozenset()), reads=("speech", "text"))
