"""Who waits, takes turns and gives way is told from who does not."""

import dataclasses

import numpy as np
import pytest

from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.evaluation.turn_taking import voiced_spans
from slm_jax.judges.turns import TurnsJudge
from tests.judges.listeners import Listener

ALL = JudgeSettings(utterances=8)
JUDGE = TurnsJudge(kinds=("recording",))


class Waiting(Config):
    seconds: float = 2.0


@dataclasses.dataclass
class Talker:
    """Speaks once it has heard nothing for `waits` seconds, for `speaks` seconds, or until the other begins again."""

    waits: float
    speaks: float = 1.5
    gives_way: bool = True
    reads: frozenset = frozenset({"speech"})
    writes: frozenset = frozenset({"speech", "text"})
    rate_hz: int = 16_000
    decoding: Waiting = dataclasses.field(default_factory=Waiting)

    def open(self, batch):
        """That it has one says that it streams; nobody opens it here."""

    def respond(self, conversations, decoding, key):
        return [self.reply(one[0].speech[0].samples, decoding.seconds) for one in conversations]

    def reply(self, heard, seconds):
        said = np.zeros(len(heard) + round(seconds * self.rate_hz), np.float32)
        spans = voiced_spans(heard, self.rate_hz)
        begins = [start for start, _ in spans[1:]] + [len(said) / self.rate_hz]
        for (_, end), following in zip(spans, begins, strict=True):
            start = end + self.waits
            if self.gives_way and start >= following:
                continue
            last = min(start + self.speaks, following) if self.gives_way else start + self.speaks
            first, last = round(start * self.rate_hz), min(round(last * self.rate_hz), len(said))
            said[first:last] = 0.2 * np.sin(0.1 * np.arange(last - first))
            if not self.gives_way:
                break
        return Reply((Message("assistant", (Text("yes"), Speech(said, self.rate_hz))),), {})


def judged(context, *args, **changes):
    return JUDGE.judge(Talker(*args, **changes), context, ALL)


def shares(section):
    return {name: section.figures["turns"][name]["share"] for name in ("asked", "paused", "interrupted")}


def test_patience_is_told_from_haste_and_from_sleep(context):
    assert shares(judged(context, 0.9)) == {"asked": 1.0, "paused": 0.0, "interrupted": 1.0}
    assert shares(judged(context, 1.4)) == {"asked": 0.0, "paused": 0.0, "interrupted": 0.0}
    stubborn = judged(context, 0.1, gives_way=False, speaks=4.0)
    assert shares(stubborn) == {"asked": 1.0, "paused": 1.0, "interrupted": 0.0}


def test_the_wait_is_what_it_is(context):
    found = judged(context, 0.6).figures["turns"]
    assert found["questions"] == 8 and found["silent"] == 0 and found["backchannels_per_minute"] == 0.0
    assert found["seconds_to_voice"]["p50"] == pytest.approx(0.6, abs=0.05)
    silent = judged(context, 100.0)
    assert silent.figures["turns"]["silent"] == 8 and silent.figures["turns"]["seconds_to_voice"]["p50"] is None
    assert silent.plots == ()


def test_what_is_shown(context, tmp_path):
    section = judged(context, 0.6)
    assert [row[0] for row in section.tables[0].rows] == ["asked", "paused", "interrupted"] and len(section.sounds) == 3
    section.plots[0].draw(tmp_path / "turns.png")
    assert (tmp_path / "turns.png").stat().st_size > 1000


def test_who_takes_turns_anyway_is_not_judged(context, bare):
    with pytest.raises(Lacking, match="does not speak while it hears"):
        JUDGE.judge(Listener(("yes",) * 8), context, ALL)
    with pytest.raises(Lacking, match="two held-out questions"):
        JUDGE.judge(Talker(0.5), bare, ALL)
