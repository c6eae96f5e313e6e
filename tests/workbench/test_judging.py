import json

import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.corpus import WorldConfig
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.workbench.judging import chosen, keep_figures, sections_of


class LengthJudge(JudgeConfig):
    """How many utterances it was asked to look at, or what it lacks."""

    name: str = "length"
    lacks: str = ""

    def judge(self, system, context, settings):
        if self.lacks:
            raise Lacking(self.lacks)
        return Section("Length", figures={"length": settings.utterances, "system": system})


CONFIG = RunConfig(
    name="run", corpus=WorldConfig(), stages=(), judges=(LengthJudge(), LengthJudge(name="words", lacks="no words"))
)


@pytest.fixture
def sections(tmp_path):
    context = StageContext(RunFolder(tmp_path), CONFIG.corpus, tmp_path)
    return sections_of(CONFIG.judges, "it", context, JudgeSettings(utterances=3))


def test_what_a_judge_lacks_becomes_its_section(sections):
    assert [section.figures for section in sections] == [{"length": 3, "system": "it"}, {"words_left_out": "no words"}]
    assert sections[1].words == "Left out: no words."


def test_figures_of_judges_that_were_not_asked_stay(sections, tmp_path):
    assert keep_figures(tmp_path, sections, before=False) == {"length": 3, "system": "it", "words_left_out": "no words"}
    assert keep_figures(tmp_path, [Section("Length", figures={"length": 4})], before=True) == {"length": 4}
    assert json.loads((tmp_path / "figures.json").read_text()) == {
        "length": 4,
        "system": "it",
        "words_left_out": "no words",
    }
    keep_figures(tmp_path, [Section("Length", figures={"length": 5})], before=False)
    assert json.loads((tmp_path / "figures.json").read_text()) == {"length": 5}


def test_judges_are_chosen_by_name():
    assert chosen(CONFIG, ()) == CONFIG.judges
    assert [judge.name for judge in chosen(CONFIG, ("words",))] == ["words"]
    with pytest.raises(UserError, match=r"is not in this run .did you mean 'length'.*it has length, words"):
        chosen(CONFIG, ("lenght",))
    with pytest.raises(UserError, match="every judge needs a name of its own"):
        CONFIG.replace(judges=(LengthJudge(), LengthJudge()))


class UsualConfig(RunConfig):
    """A kind of run that has judges by default."""

    judges: tuple[JudgeConfig, ...] = (LengthJudge(), LengthJudge(name="late"))


def test_a_run_that_is_older_than_a_judge_may_ask_it_by_name():
    own = LengthJudge(lacks="much")
    old = UsualConfig(name="run", corpus=WorldConfig(), stages=(), judges=(own,))
    assert chosen(old, ()) == (own,)
    assert chosen(old, ("late",)) == (LengthJudge(name="late"),)
    assert chosen(old, ("length", "late")) == (own, LengthJudge(name="late"))  # its own before the usual one
