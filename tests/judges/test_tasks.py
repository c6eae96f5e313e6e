"""Tasks of training asked of a system whose replies are known: figures by hand, beside other speech."""

import pytest

from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.evaluation.translation import bleu
from slm_jax.judges.tasks import TasksJudge
from tests.judges.listeners import SECONDS, TEXTS, Listener

ALL = JudgeSettings(utterances=4)
WRITE = AskedTaskConfig(asks=("Write.",))
SAYS = ("Seven grey cats sleep.", "five old men", "blue birds fly south", "wet socks", *TEXTS[4:])
"""By tone: right, one word of four missing, right, two missing."""


def judge_of(example, name="task", **changes):
    return TasksJudge(tasks=MixtureConfig(parts=(PartConfig(name=name, weight=1.0, example=example),)), **changes)


def test_figures_by_hand(context):
    system = Listener(SAYS)
    section = judge_of(WRITE).judge(system, context, ALL)
    found = section.figures["tasks"]["task"]
    assert (found["questions"], found["wer"], found["exact"], found["holds"]) == (4, 3 / 16, 2 / 4, None)
    assert found["f1"] == pytest.approx((1 + 6 / 7 + 1 + 4 / 6) / 4)
    assert found["wer_interval"][0] <= found["wer"] <= found["wer_interval"][1]
    assert [one[-1].text for one in system.heard] == ["Write."] * 8
    assert section.tables[1].rows[0] == ("task", TEXTS[0], SAYS[0], SAYS[1])


def test_the_control_hears_the_next_item(context):
    """Nobody says another item's words: every word is wrong, two of them are not even there, one is too many."""
    found = judge_of(WRITE).judge(Listener(SAYS), context, ALL).figures["tasks"]["task"]["other_speech"]
    assert (found["questions"], found["exact"], found["f1"]) == (4, 0, 0)
    assert found["wer"] == 1.0


def test_a_right_answer_holds_the_key_whatever_is_said_around_it(context):
    says = ("So slow.", "It is fast.", "slowly", "normal", *TEXTS[4:])
    found = judge_of(AnsweredTaskConfig(kinds=None)).judge(Listener(says), context, ALL).figures["tasks"]["task"]
    assert (found["holds"], found["exact"]) == (3 / 4, 1 / 4)
    assert found["other_speech"]["holds"] == 0
    copied = judge_of(WRITE).judge(Listener(TEXTS), context, ALL).figures["tasks"]["task"]
    assert copied["holds"] is None, "a transcript has no key, whatever the item is asked elsewhere"


def test_translations_get_other_figures(context):
    parts = (PartConfig(name="de", weight=1.0, example=WRITE), PartConfig(name="en", weight=1.0, example=WRITE))
    judge = TasksJudge(tasks=MixtureConfig(parts=parts), translations=(("de", "de"),))
    section = judge.judge(Listener(SAYS), context, ALL)
    german, english = (section.figures["tasks"][name] for name in ("de", "en"))
    assert german["bleu"] == pytest.approx(bleu(TEXTS[:4], SAYS[:4], "de").value)
    assert "tok:13a" in german["bleu_signature"] and "nc:6" in german["chrf_signature"]
    assert german["chrf_interval"][0] < german["chrf"] < german["chrf_interval"][1]
    assert "wer" not in german and "bleu" not in english
    header = section.tables[0].header
    assert {"bleu", "chrf", "wer", "bleu, other speech"} <= set(header)
    assert all(len(row) == len(header) for row in section.tables[0].rows)


def test_what_has_no_other_speech_has_no_control(context):
    alone = judge_of(WRITE).judge(Listener(SAYS), context, JudgeSettings(utterances=1)).figures["tasks"]["task"]
    assert alone["questions"] == 1 and alone["other_speech"] == {"questions": 0} | dict.fromkeys(
        alone["other_speech"].keys() - {"questions"}
    )
    judge = judge_of(WrittenTaskConfig(task=WRITE))
    (asked, *_) = judge.asked(judge.tasks.parts[0], context, 4, 16_000)
    assert asked.question.asked[0].text == f"{TEXTS[0]} Write." and not asked.question.asked[0].speech


def test_items_that_training_left_out_are_left_out(context):
    part = PartConfig(name="task", weight=1.0, example=WRITE)
    judge = judge_of(WRITE, longest_s=SECONDS)
    assert len(judge.asked(part, context, 8, 16_000)) == 8
    with pytest.raises(Lacking, match="no held-out item can be used for 'task'"):
        judge.replace(longest_s=SECONDS - 0.1).asked(part, context, 8, 16_000)
    with pytest.raises(Lacking, match="no held-out item can be used"):
        judge.asked(part.replace(corpus="another"), context, 8, 16_000)


def test_what_is_lacking(context, empty):
    with pytest.raises(Lacking, match="writes no text"):
        judge_of(WRITE).judge(Listener(SAYS, writes=frozenset({"speech"})), context, ALL)
    with pytest.raises(Lacking, match="no held-out item can be used for 'task'"):
        judge_of(WRITE).judge(Listener(SAYS), empty, ALL)
