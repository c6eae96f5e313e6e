import numpy as np
import pytest

from slm_jax.core.messages import Turn
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.answers import AnswersJudge, answered, question_of, with_other_speech
from tests.judges.listeners import Listener

SAYS = ("It is slow.", "slow or fast", "fast", "Normal!", "a red book", "It is bread", "", "beans")
"""By tone: right, two labels at once, wrong, right; right, holds it, nothing, wrong."""
ALL = JudgeSettings(utterances=8)


def judged(context, **changes):
    return AnswersJudge().judge(Listener(SAYS, **changes), context, ALL)


def test_scores_by_hand_by_task_and_in_all(context):
    found = judged(context).figures["answers"]
    assert list(found) == ["all", "rate", "recording"]
    expected = {
        "all": (8, 2, 3 / 8, 3.5 / 8, 4 / 8),
        "rate": (4, 1, 2 / 4, 2 / 4, 2 / 4),
        "recording": (4, 1, 1 / 4, 1.5 / 4, 2 / 4),
    }
    for name, values in expected.items():
        row = found[name]
        assert tuple(row[key] for key in ("questions", "unparsed", "exact", "f1", "contains")) == pytest.approx(values)
        low, high = row["exact_interval"]
        assert 0 <= low < row["exact"] < high <= 1
    wide, narrow = (found[name]["contains_interval"] for name in ("rate", "all"))
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_the_control_asks_the_same_about_other_speech(context):
    system = Listener(SAYS)
    section = AnswersJudge().judge(system, context, ALL)
    found = {name: row["other_speech"] for name, row in section.figures["answers"].items()}
    # `fast` is what is said of the tone after it, every other reply is wrong
    assert [found[name]["exact"] for name in ("all", "rate", "recording")] == pytest.approx([1 / 8, 1 / 4, 0])
    assert [found[name]["unparsed"] for name in ("all", "rate", "recording")] == [2, 1, 1]
    assert found["all"]["questions"] == 8
    assert [one[-1].text for one in system.heard] == ["What is it?"] * 16
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["all", "rate", "recording"]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[1][1] == 4 and table.rows[1][5] == 1 and table.rows[1][2].startswith("0.500 [")


def test_the_picture_shows_both(context, tmp_path):
    (plot,) = judged(context).plots
    plot.draw(tmp_path / "answers.png")
    assert (tmp_path / "answers.png").stat().st_size > 1000


def test_a_single_question_has_no_other_speech(context):
    section = AnswersJudge().judge(Listener(SAYS), context, JudgeSettings(utterances=1))
    row = section.figures["answers"]["all"]
    assert row["other_speech"]["questions"] == 0 and row["other_speech"]["exact"] is None
    assert row["questions"] == 1 and row["exact_interval"] is None


def test_what_is_lacking(context, bare, empty):
    with pytest.raises(Lacking, match="no held-out item has a question"):
        AnswersJudge().judge(Listener(SAYS), bare, ALL)
    with pytest.raises(Lacking, match="no held-out item has a question"):
        AnswersJudge().judge(Listener(SAYS), empty, ALL)
    with pytest.raises(Lacking, match="cannot read any of the 8 held-out questions"):
        judged(context, reads=frozenset({"speech"}))
    with pytest.raises(Lacking, match="writes no text"):
        judged(context, writes=frozenset({"speech"}))
    with pytest.raises(Lacking, match="reads no speech"):
        judged(context, reads=frozenset({"text"}))


def test_an_answer_is_the_last_that_the_assistant_gives_to_the_user():
    asked, replied, told = Turn("user", "a?"), Turn("assistant", "b", answer="b"), Turn("user", "so", answer="so")
    assert answered([asked, replied, asked, replied, told]) == 3
    assert answered([replied, asked]) is None and answered([asked, told]) is None
    assert answered([Turn("system", "c"), replied]) is None


def test_a_question_ends_with_the_user_whatever_the_assistant_puts_in():
    turns = (
        Turn("user", "hello", start_s=0.0, end_s=0.1),
        Turn("assistant", "yes", channel=1, start_s=0.1, end_s=0.2),
        Turn("user", "how many?", start_s=0.2, end_s=0.5),
        Turn("assistant", "mm", channel=1, start_s=0.3, end_s=0.4),
        Turn("assistant", "two", channel=1, start_s=0.5, end_s=0.8, answer="two"),
    )
    samples = np.stack([np.full(8_000, 0.25), np.full(8_000, 0.5)], axis=1).astype(np.float32)
    item = {"messages": turns, "samples": samples, "kind": "dialogue", "task": ""}
    found = question_of(item, 8_000, 8_000)
    assert (found.answer, found.group) == ("two", "dialogue")
    assert [message.role for message in found.asked] == ["user", "assistant", "user"]
    assert [round(message.speech[0].seconds, 3) for message in found.asked] == [0.1, 0.1, 0.3]
    assert [message.speech[0].samples[0] for message in found.asked] == [0.25, 0.5, 0.25]


def test_other_speech_is_that_of_the_next_in_the_group_and_words_stay(context):
    questions = AnswersJudge().questions(16_000, context, 8)
    others = with_other_speech(questions)
    rate = [i for i, one in enumerate(questions) if one.group == "rate"]
    for place, following in zip(rate, [*rate[1:], rate[0]], strict=True):
        assert others[place].asked[0].speech[0] is questions[following].asked[0].speech[0]
        assert others[place].asked[0].parts[1] is questions[place].asked[0].parts[1]
        assert others[place].answer == questions[place].answer
