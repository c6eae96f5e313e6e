import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, rows_of
from slm_jax.judges.units import UnitsJudge


def test_rows_hold_the_columns_of_all():
    table = rows_of({"ours": {"loss_a": 1.0, "b": None}, "theirs": {"b": 2.0, "c": 3.0}})
    assert list(table.header) == ["", "loss a", "b", "c"]
    assert table.rows == [["ours", 1.0, None, None], ["theirs", None, 2.0, 3.0]]


def test_what_was_left_out_is_one_sentence_and_a_figure():
    section = UnitsJudge(name="my_units").left_out("the corpus is empty")
    assert (section.title, section.words) == ("My units", "Left out: the corpus is empty.")
    assert section.figures == {"my_units_left_out": "the corpus is empty"}
    assert not section.tables


def test_a_judge_travels_as_json_and_must_say_how_it_judges():
    assert from_json(UnitsJudge().to_json()) == UnitsJudge()
    with pytest.raises(TypeError, match="does not say how"):
        JudgeConfig(name="none").judge(np, None, JudgeSettings())


def test_nothing_to_look_at_is_refused():
    with pytest.raises(UserError, match="utterances is 0"):
        JudgeSettings(utterances=0)
