"""Words that are written while speech comes in are those of the whole clip at the same pace, whatever others do."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.judges.answers import Question
from slm_jax.judges.paces import PacesJudge
from slm_jax.judges.tasks import Asked
from slm_jax.nn.pacing import PaceConfig
from slm_jax.serving.listening_session import ListeningSession
from slm_jax.systems.speech_aware.bestow import TRANSCRIPTION
from tests.assemblies.small_speech_aware import voice
from tests.systems.drawn_bestow import ENCODER, drawn_bestow

ASKED = "Write down what is said."
PACE = PaceConfig(chunk=2, wait=2, tokens=3)
SECONDS = (0.47, 0.3, 0.07)
"""Five chunks and a bit, three and a bit, less than one."""


def asked(clip: Speech) -> tuple[Message, ...]:
    return (Message("user", (clip, Text(ASKED))),)


@pytest.fixture(scope="module")
def clips():
    return [voice(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def system():
    return dataclasses.replace(drawn_bestow(), decoding=drawn_bestow().decoding.replace(max_new=14))


@pytest.fixture(scope="module")
def paced(system, clips):
    """Replies of whole clips at the pace."""
    how = system.decoding.replace(pace=PACE)
    return system.respond([asked(clip) for clip in clips], how, jax.random.key(0))


def test_a_pace_changes_what_is_written_and_says_what_was_read(system, clips, paced):
    whole = system.respond([asked(clip) for clip in clips], None, jax.random.key(0))
    first = [one[0].trace["log_probs"][0] for one in (whole, paced)]
    assert abs(first[0] - first[1]) > 1e-4, "what is not read yet has no effect"
    np.testing.assert_array_equal(whole[2].trace["ids"], paced[2].trace["ids"])  # all of it is in the first chunks
    read = paced[0].trace["read_s"]
    wanted = np.minimum(0.08 * (2 + np.arange(len(read)) // 3), SECONDS[0])
    np.testing.assert_allclose(read, wanted, atol=1e-6)
    alone = system.respond([asked(clips[1])], system.decoding.replace(pace=PACE), jax.random.key(0))[0]
    np.testing.assert_array_equal(alone.trace["ids"], paced[1].trace["ids"])


def test_a_session_writes_what_the_whole_clip_gets_at_the_same_pace(system, clips, paced):
    session = ListeningSession(system, 3, ASKED, PACE, longest_s=1.0)
    assert session.hop == 2 * ENCODER.hop == 1_280
    texts, turns = [""] * 3, [0, 0, 0]
    for turn in range(8):
        given, lengths = np.zeros((3, session.hop), np.float32), np.zeros(3, int)
        for row, clip in enumerate(clips):
            piece = clip.samples[turns[row] * session.hop : (turns[row] + 1) * session.hop]
            if turn != row:  # each rests once
                given[row, : len(piece)], lengths[row], turns[row] = piece, len(piece), turns[row] + 1
        texts = [a + b for a, b in zip(texts, session.push_parts(given, lengths).texts, strict=True)]
        if turn == 2:
            assert session.said[2] == [] and len(session.said[0]) == 3 * (turns[0] - 1)
    texts = [a + b for a, b in zip(texts, session.finish().texts, strict=True)]
    for row, reply in enumerate(paced):
        assert session.said[row] == reply.trace["ids"].tolist()
        assert texts[row].strip() == reply.messages[0].text
    session.reset(np.array([True, False, False]))
    first = np.zeros((3, session.hop), np.float32)
    first[0] = clips[0].samples[: session.hop]
    for turn in range(2):
        first[0] = clips[0].samples[turn * session.hop : (turn + 1) * session.hop]
        session.push(first, np.array([True, False, False]))
    assert session.said[0] == paced[0].trace["ids"][:3].tolist()
    assert session.said[1] == paced[1].trace["ids"].tolist()


def test_teacher_forced_at_a_pace_it_is_as_likely_as_it_was_written(system, clips, paced):
    """Training masks by what is written up to each word what decoding has not read."""
    how = system.decoding.replace(pace=PACE)
    scored = dataclasses.replace(system, decoding=how)
    ids = paced[0].trace["ids"]
    end = system.layout.end_id
    said = system.layout.tokens.decode([one for one in ids.tolist() if one != end])
    again = system.layout.tokens.encode(said) if end not in ids else None
    if again is None or list(again) != ids.tolist():
        pytest.skip("what was drawn is no text")
    found = scored.log_prob([(*asked(clips[0]), Message("assistant", (Text(said),)))])[0]
    np.testing.assert_allclose(found[: len(ids)], paced[0].trace["log_probs"], atol=1e-3)


def test_the_judge_asks_at_every_pace(system, clips):
    questions = [Asked(Question(asked(clip), "so it is", "task"), "") for clip in clips]
    tasks = MixtureConfig(parts=(PartConfig(name="task", weight=1.0, example=TRANSCRIPTION),))
    judge = PacesJudge(tasks=tasks, paces=(PACE, PACE.replace(wait=1)))
    late, early = (judge.at_pace(system, questions, pace) for pace in judge.paces)
    assert late["questions"] == 3 and late["wer"] is not None and late["other_speech"]["questions"] == 3
    assert 0 < early["first_s"] < late["first_s"] <= np.mean([clip.seconds for clip in clips])
    assert early["lag_s"] < late["lag_s"]


def test_what_cannot_be_done_is_refused(system):
    with pytest.raises(UserError, match="says how many ids are written"):
        ListeningSession(system, 1, ASKED)
    with pytest.raises(UserError, match=r"whole chunks of 1280"):
        ListeningSession(system, 1, ASKED, PaceConfig(chunk=3))
    with pytest.raises(UserError, match="followed alone"):
        system.decoding.replace(pace=PACE, beams=2)
