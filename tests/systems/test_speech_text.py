"""Systems of speech and text in one stream: what they are asked is what they were trained on; sizes; stages."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.examples.one_stream import Document, WordTurns
from slm_jax.judges.tasks import TasksJudge
from slm_jax.systems.speech_text import speechgpt, spirit_lm
from slm_jax.training.pre.one_stream_lm import OneStreamLMConfig


def documents(config):
    """Those of all stages by name."""
    stages = [stage for stage in config.stages if isinstance(stage, OneStreamLMConfig)]
    return {(stage.name, part.name): part.example for stage in stages for part in stage.mixture.parts}


@pytest.mark.parametrize("config", [speechgpt.config("tiny"), speechgpt.config("7b")], ids=["tiny", "7b"])
def test_forms_of_speechgpt_are_documents_of_its_stages(config):
    trained = {(prompt, one.answer) for one in documents(config).values() for prompt in one.prompt}
    asked = {form.name: (form.prompt, form.answer) for form in config.forms}
    beside = {"notes"} if config.name == "speechgpt_7b" else set()
    assert {name for name, pair in asked.items() if pair not in trained} - {"written"} == beside
    assert config.forms[0].takes(frozenset({"speech"}))


def test_three_stages_go_on_from_each_other_and_the_last_keeps_its_base():
    stages = {stage.name: stage for stage in speechgpt.config("7b").stages if isinstance(stage, OneStreamLMConfig)}
    assert [stage.lm.source for stage in stages.values()] == ["weights/llama-7b", "stage:ma", "stage:cm"]
    assert [stage.lora is not None for stage in stages.values()] == [False, False, True]
    released = speechgpt.LORA
    assert (released.rank, released.alpha, released.dropout) == (8, 16.0, 0.05)
    assert {one.prompt_weight for one in documents(speechgpt.config("7b")).values() if one.prompt} == {1.0}


def test_the_twin_is_asked_beside_notes_and_the_published_one_is_not():
    twin, published = (speechgpt.config(size).judges[0] for size in ("tiny", "7b"))
    assert isinstance(twin, TasksJudge) and twin.tasks.parts[0].example == speechgpt.NOTES
    assert published.tasks.parts[0].example == speechgpt.QUESTIONS


@pytest.mark.parametrize("size", ["tiny", "7b"])
def test_spirit_lm_reads_a_third_of_each_kind_behind_its_marks(size):
    config = spirit_lm.config(size)
    made = documents(config)
    assert [type(one) for one in made.values()] == [Document, Document, WordTurns]
    speech, text, turns = made.values()
    assert config.scored == (speech.answer, text.answer) and turns.marks == spirit_lm.MARKS
    space = text.answer.removeprefix("[Text]").removesuffix("{text}")
    assert space == turns.before == (" " if size == "tiny" else "")
    forms = {form.name: form for form in config.forms}
    assert forms["speak"].prompt == f"[Text]{space}{{text}}[Speech]" and forms["go_on"].prompt is None


def test_unknown_sizes_are_refused():
    for system in (speechgpt, spirit_lm):
        with pytest.raises(UserError, match=r"size is .8b.: one of tiny, "):
            system.config("8b")
