import pytest

from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.transcription import TranscriptionJudge
from tests.judges.listeners import RATE_HZ, TEXTS, Listener

SAID = (TEXTS[0], "Five old MEN swim.", "", f"{TEXTS[3]} today", *TEXTS[4:])
"""One word substituted, four missed, one added; the rest is right."""
ALL = JudgeSettings(utterances=8)


def test_errors_by_hand_and_transcripts_of_the_others_as_control(context):
    system = Listener(SAID)
    section = TranscriptionJudge(prompt="Write.").judge(system, context, ALL)
    found = section.figures["transcription"]
    assert found["wer"] == pytest.approx(6 / 32)
    assert found["words"] == {"substitutions": 1, "deletions": 4, "insertions": 1, "reference": 32}
    assert found["shuffled_wer"] == pytest.approx(33 / 32)  # no two texts share a word: all wrong, one too many
    assert 0 < found["cer"] < found["wer"]
    assert (found["utterances"], found["empty"]) == (8, 1) and "1 transcripts were empty" in section.words
    assert {one[0].text for one in system.heard} == {"Write."}
    worst = section.tables[1].rows
    assert [row[1] for row in worst] == [1.0, 0.25, 0.25, 0.0, 0.0]
    assert worst[0][2:] == [TEXTS[2], ""]
    (sound,) = section.sounds
    assert sound.rate_hz == RATE_HZ and len(sound.samples) == RATE_HZ // 2


def test_a_system_that_reads_speech_alone_is_shown_no_prompt(context):
    system = Listener(TEXTS, reads=frozenset({"speech"}))
    found = TranscriptionJudge().judge(system, context, JudgeSettings(utterances=3)).figures["transcription"]
    assert (found["wer"], found["cer"], found["shuffled_wer"], found["utterances"]) == (0, 0, 1, 3)
    assert {one[0].kinds for one in system.heard} == {frozenset({"speech"})}


def test_one_utterance_has_no_other_text_beside_it(context):
    section = TranscriptionJudge().judge(Listener(TEXTS), context, JudgeSettings(utterances=1))
    assert section.figures["transcription"]["shuffled_wer"] is None


def test_what_is_lacking(context, bare, empty):
    with pytest.raises(Lacking, match="no held-out utterance has a text"):
        TranscriptionJudge().judge(Listener(TEXTS), bare, ALL)
    with pytest.raises(Lacking, match="no held-out utterance has a text"):
        TranscriptionJudge().judge(Listener(TEXTS), empty, ALL)
    with pytest.raises(Lacking, match="the system writes no text"):
        TranscriptionJudge().judge(Listener(TEXTS, writes=frozenset({"speech"})), context, ALL)
    with pytest.raises(Lacking, match="items of kind sentence are not there: the corpus has recording"):
        TranscriptionJudge(kinds=("sentence",)).judge(Listener(TEXTS), context, ALL)
