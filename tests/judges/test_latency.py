import numpy as np
import pytest

from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges import latency
from slm_jax.judges.latency import LatencyJudge, cut
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.judges.listeners import TEXTS, Clock, Listener, Reader, Streamer, Worker
from tests.serving.drawn import drawn_unit_speech_lm

WORK_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.2)
ALL = JudgeSettings(utterances=8)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    return clock


def test_times_by_hand_and_none_of_them_warms(context, clock):
    section = LatencyJudge().judge(Worker((), clock=clock, work_s=WORK_S), context, ALL)
    found = section.figures["latency"]
    assert list(found) == ["machine", "respond"]  # it does not stream
    reply = found["respond"]
    assert reply["count"] == 8 and reply["p50"] == pytest.approx(0.45) and reply["mean"] == pytest.approx(0.5)
    assert reply["p90"] == pytest.approx(0.7 + 0.3 * 0.5)
    assert 5.1 <= reply["first_call_s"] <= 6.2
    assert reply["real_time_factor_heard"] == pytest.approx(4.0 / (8 * 0.5))
    assert reply["real_time_factor_said"] == pytest.approx(4.0 / (8 * 0.25))
    assert found["machine"]["cores"] >= 1 and f"{found['machine']['cores']} cores" in section.words


def test_pushes_by_hand(context, clock):
    section = LatencyJudge().judge(Streamer((), clock=clock, work_s=WORK_S), context, ALL)
    push = section.figures["latency"]["push"]
    assert push["count"] == 8 * 5 and push["hop_s"] == pytest.approx(0.1)
    assert push["share_over_hop"] == pytest.approx(1 / 5)
    assert push["p50"] == pytest.approx(0.02) and push["p99"] == pytest.approx(0.3)
    assert [row[0] for row in section.tables[0].rows] == ["respond", "push"]
    assert "A push brings 100 ms of speech; 40 were timed, of which 20.0% took longer" in section.words


def test_so_many_pushes_and_no_more(context, clock):
    judge = LatencyJudge(pushes=7)
    assert judge.judge(Streamer((), clock=clock, work_s=WORK_S), context, ALL).figures["latency"]["push"]["count"] == 7


def test_the_picture_of_real_times(context, tmp_path):
    section = LatencyJudge(prompt="Write.").judge(Timely(TEXTS), context, JudgeSettings(utterances=4))
    reply = section.figures["latency"]["respond"]
    assert 0 < reply["p50"] < 5 and reply["real_time_factor_said"] is None
    section.plots[0].draw(tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000


class Timely(Listener):
    """One that is asked alone, with a single key."""

    def respond(self, conversations, decoding, key):
        assert len(conversations) == 1 and conversations[0][0].text == "Write."
        return [self.reply(one) for one in conversations]


def test_a_system_of_text_alone_is_timed_on_texts(context):
    class Echo(Reader):
        def respond(self, conversations, decoding, key):
            assert conversations[0][0].text in TEXTS
            return [Reply((Message("assistant", one[0].parts),), {}) for one in conversations]

    reply = LatencyJudge().judge(Echo(TEXTS), context, ALL).figures["latency"]["respond"]
    assert reply["count"] == 8 and reply["real_time_factor_heard"] is None


def test_a_speech_lm_is_timed_against_what_it_hears_and_says(context):
    system = drawn_unit_speech_lm(decoding=UnitDecoding(max_new=4, min_new=2))
    found = LatencyJudge(prompt="Go on.").judge(system, context, JudgeSettings(utterances=1)).figures["latency"]
    reply = found["respond"]
    assert "push" not in found and 0 < reply["p50"] < reply["first_call_s"]  # the first one compiles
    assert reply["real_time_factor_heard"] == pytest.approx(reply["p50"] / 0.5)
    assert reply["real_time_factor_said"] > 0


def test_what_is_lacking(bare, empty):
    with pytest.raises(Lacking, match="no held-out item that the system reads"):
        LatencyJudge().judge(Worker((), work_s=WORK_S), empty, ALL)
    with pytest.raises(Lacking, match="no held-out item that the system reads"):
        LatencyJudge().judge(Reader(TEXTS), bare, ALL)


def test_stretches_cover_the_clip_and_no_more():
    found = cut(np.arange(1, 8, dtype=np.float32), 3)
    assert found[:, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
