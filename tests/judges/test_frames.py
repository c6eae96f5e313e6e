"""Every frame of a session by its parts."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.frames import FramesJudge
from tests.judges.listeners import Listener, Streamer
from tests.serving.drawn_codes import drawn_duplex

SOME = JudgeSettings(utterances=2)


def test_frames_and_their_parts_of_a_drawn_model(context, tmp_path):
    section = FramesJudge(frames=12, repeats=3).judge(drawn_duplex(), context, SOME)
    found = section.figures["frames"]
    codec, rate_hz = drawn_duplex().codec.config, drawn_duplex().rate_hz
    assert found["frames"] == 12 and found["recompiled"] == 0 and 0 <= found["missed"] <= 12
    assert 0 < found["frame_ms"]["p50"] <= found["frame_ms"]["p99"] <= found["frame_ms"]["max"]
    chain = found["chain_ms"]
    assert list(chain)[:3] == ["capture", "codec's look ahead", "delay"] and list(chain)[-1] == "transport"
    assert chain["capture"] == chain["delay"] == pytest.approx(1000 * codec.hop / rate_hz)  # a step behind: one frame
    assert chain["codec's look ahead"] == pytest.approx(1000 * codec.late / rate_hz)
    computed = ("codec encode", "temporal step", "text, codes", "codec decode", "transport")
    assert all(chain[name] > 0 for name in computed)
    assert found["total_ms"] == pytest.approx(sum(chain.values()))
    assert f"after {found['total_ms']:.0f} ms" in section.words and "12 frames" in section.words
    for plot in section.plots:
        plot.draw(tmp_path / f"{plot.name}.png")
        assert (tmp_path / f"{plot.name}.png").stat().st_size > 1000


def test_asking_for_parts_changes_nothing():
    sound, active = 0.1 * np.random.default_rng(0).standard_normal((6, 1, drawn_duplex().open(1).hop)), np.ones(1, bool)
    one, other = drawn_duplex().open(1), drawn_duplex().open(1)
    for stretch in sound:
        for part in one.parts().values():
            part()
        np.testing.assert_array_equal(one.push(stretch, active).samples, other.push(stretch, active).samples)
        np.testing.assert_array_equal(one.ids, other.ids)


def test_who_has_no_such_session_is_not_judged(context):
    with pytest.raises(Lacking, match="does not speak while it hears"):
        FramesJudge().judge(Listener(("yes",) * 8), context, SOME)
    with pytest.raises(Lacking, match="a session of text and two sides"):
        FramesJudge().judge(Streamer(()), context, SOME)
    with pytest.raises(UserError, match="frames is 0: at least 1"):
        FramesJudge(frames=0)
