"""Alignment as stages: an LM's own answers as targets, held by its hash; speech near its words; transcripts."""

import dataclasses
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.data.examples.described_tasks import DRAW, TARGET, DescribedTaskConfig, GeneratedTaskConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.records import RecordSource
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.generation.whisper_words import Transcription
from slm_jax.objectives.alignment import SameWordsConfig
from slm_jax.objectives.token_distance import TokenDistanceConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post import lm_targets
from slm_jax.training.post.alignment import AlignmentStageConfig
from slm_jax.training.post.clip_words import HEARD, ClipWordsConfig
from slm_jax.training.post.lm_targets import CHUNKS, TARGETS, LMTargetsConfig
from tests.contracts.checks import random_params
from tests.training.small_answers import (
    LM,
    WRITE,
    MeasuringContext,
    Tones,
    assert_same,
    carry_out,
    context_of,
    planned,
    run_of,
    stage_of,
    weights,
    with_part,
    write_parts,
)
from tests.whisper_folder import write_whisper

TWO = TrainConfig(steps=2, log_every=1)
DESCRIBED = DescribedTaskConfig(task=WRITE, form="{text} ({seconds} s)")


class TimedTones(Tones):
    """Tones that know when their word is said."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        seconds = len(item["samples"]) / 16_000
        said = [{"word": item["text"], "start": 0.0, "end": seconds}] if item["text"] else []
        return {**item, "seconds": round(seconds, 2), "extra": {"words": said}}


class TimedContext(MeasuringContext):
    def source(self, split, kinds=None):
        return TimedTones(8 if split == "train" else 4)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


def targets_of(folder, **changes):
    settings = {
        "name": "targets",
        "part": PartSource(path="frozen/lm", source=str(folder / "lm")),
        "tokens": SpecialsConfig(),
        "template": PLAIN,
        "tasks": DESCRIBED,
        "sampling": SamplingConfig(max_new=4, min_new=2, temperature=0.0),
        "rows": 3,
        "chunk": 5,
        "longest": 36,
    }
    return LMTargetsConfig(**settings | changes)


def aligned(folder, name="aligned", **changes):
    plain = stage_of(folder, name, tasks=WRITE, train=TWO, length=24)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return AlignmentStageConfig(**fields | changes)


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """A run whose language model has answered."""
    folder = tmp_path_factory.mktemp("run")
    carry_out(targets_of(parts), context_of(folder, kind=TimedContext))
    return folder


def table(folder, split="train"):
    source = RecordSource(folder / "stages" / "targets" / TARGETS / split / "task")
    return [source[place] for place in range(len(source))]


def test_the_language_model_answers_every_item_that_can_be_described(run):
    rows = table(run)
    assert [row["id"] for row in rows] == [str(place) for place in range(8)] and len(table(run, "dev")) == 4
    assert [bool(row[TARGET]) for row in rows].count(False) >= 1 and not rows[6][TARGET], "item 6 has no text"
    assert len({row[TARGET] for row in rows}) > 1 and len({row[DRAW] for row in rows}) == 8
    assert not (run / "stages" / "targets" / CHUNKS / "train" / "task" / "00000000").exists()


def test_a_run_that_was_stopped_goes_on_where_it_was(parts, run, tmp_path, monkeypatch):
    """A chunk of five items is asked in two groups: stopped in the second chunk, the first is not asked again."""
    context, asked = context_of(tmp_path, kind=TimedContext), []

    def counted(*args, limit, **kwargs):
        if len(asked) == limit:
            raise KeyboardInterrupt
        asked.append(len(args[2]))
        return generate(*args, **kwargs)

    monkeypatch.setattr(lm_targets, "generate", partial(counted, limit=2))
    with pytest.raises(KeyboardInterrupt):
        carry_out(targets_of(parts), context)
    place = context.run.stage("targets")
    assert (place.path / CHUNKS / "train" / "task" / "00000000" / "index.json").is_file() and not place.is_done()
    asked.clear()
    monkeypatch.setattr(lm_targets, "generate", partial(counted, limit=99))
    place.finish(targets_of(parts).run(place, context))
    assert asked == [3, 3, 3], "one group of the second chunk, two of the dev split"
    assert table(tmp_path) == table(run)


def test_what_was_answered_is_what_is_learnt(parts, run):
    stage = stage_of(parts, tasks=targets_of(parts).learnt, length=24, train=TWO)
    assert "targets" in stage.needs
    plan = planned(stage, context_of(run, kind=TimedContext))
    batch = next(plan.batches)
    plan.batches.close()
    tokens, answers = SpecialsConfig().make(), {row["id"]: row[TARGET] for row in table(run)}
    for row, example in enumerate(batch["example"]):
        learnt = batch["ids"][row][batch["target_weight"][row] > 0].tolist()
        assert tokens.decode(learnt) in answers.values(), example
    shutil.rmtree(run / "stages" / "answers")


def test_another_language_model_is_not_to_learn_these_answers(parts, run, tmp_path):
    save_model(tmp_path / "other", LM, random_params(LM.make(), jax.random.key(9), jnp.zeros((1, 2), jnp.int32)))
    stage = stage_of(parts, "strange", tasks=targets_of(parts).learnt, train=TWO)
    stage = with_part(stage, "lm", source=str(tmp_path / "other"))
    told = r"stage 'strange': the targets of 'targets' were written by the language model \w+, and part 'frozen/lm' is"
    with pytest.raises(UserError, match=told):
        planned(stage, context_of(run, kind=TimedContext))
    (part,) = stage.tasks.parts
    anyhow = part.replace(example=part.example.replace(of_backbone=False))
    planned(
        stage.replace(name="anyhow", tasks=stage.tasks.replace(parts=(anyhow,))), context_of(run, kind=TimedContext)
    )
    other = part.example.replace(task=AskedTaskConfig(asks=("Else?",)))
    wrong = stage_of(parts, "wrong", tasks=other, train=TWO)
    with pytest.raises(UserError, match=r"task of 'task' is .* stage 'targets' asked"):
        planned(wrong, context_of(run, kind=TimedContext))


@pytest.mark.parametrize("form", ["near", "alike"])
def test_speech_comes_nearer(parts, tmp_path, form):
    """A few steps on tones whose two words are to be told apart; the other term alone counts for nothing."""
    changes = {
        "near": {"near": TokenDistanceConfig(distance="cosine"), "said": 4},
        "alike": {"alike": SameWordsConfig(), "beside": 24},
    }[form]
    stage = aligned(parts, answers=0.0, train=TWO.replace(steps=12), lora=None, **changes)
    context = context_of(tmp_path, kind=TimedContext)
    outline, plan = stage.outline(run_of(stage)), planned(stage, context)
    batch = next(plan.batches)
    plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in batch.items()}
    carry_out(stage, context)
    lines = [line for line in read_metrics(tmp_path / "stages" / "aligned") if "loss" in line]
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert form == "alike" or {"nearest", "missing"} <= set(lines[0])


@pytest.mark.slow(seconds=20)
def test_a_stage_goes_on_from_its_alignment(parts, tmp_path):
    context = context_of(tmp_path, kind=TimedContext)
    both = {"near": TokenDistanceConfig(), "alike": SameWordsConfig(), "said": 4, "beside": 24}
    carry_out(aligned(parts, train=TWO, **both), context)
    still = OptimizerConfig(learning_rate=1e-12)
    carry_out(stage_of(parts, "tuned", goes_on="aligned", train=TrainConfig(steps=1), optimizer=still), context)
    assert_same(weights(tmp_path, "tuned"), weights(tmp_path, "aligned"), 1e-9)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answers": 0.0}, "answers is 0.0: nothing would be learnt"),
        ({"near": TokenDistanceConfig(), "clips": 2}, "clips is 2: one"),
        ({"times": "words"}, "times is 'words': goes with `near`"),
    ],
)
def test_what_does_not_go_together_is_named(parts, changes, told):
    with pytest.raises(UserError, match=re.escape(told)):
        aligned(parts, **changes)


def test_items_without_words_are_left_out_by_reason(parts, tmp_path):
    said = []
    stage = aligned(parts, near=TokenDistanceConfig(), said=4)
    with pytest.raises(UserError, match="nobody knows when its tokens are said"):
        planned(stage, context_of(tmp_path, said, kind=MeasuringContext))


@pytest.mark.slow(seconds=20)
def test_what_is_written_down_of_a_clip_stands_behind_it(parts, tmp_path):
    """By a small Whisper on drawn weights; a second stage of the run finds the table that the first one wrote."""
    write_whisper(tmp_path / "whisper")
    heard = ClipWordsConfig(source=str(tmp_path / "whisper"), transcription=Transcription(language="en", max_new=4))
    template = PLAIN.replace(speech=("<", ">"), heard="{words}")
    changes = {"tasks": WRITE, "heard": heard, "template": template, "length": 40, "train": TrainConfig(steps=1)}
    context = context_of(tmp_path / "run", kind=TimedContext)
    carry_out(stage_of(parts, **changes), context)
    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / HEARD).glob("*/index.json")}
    assert len(tables) == 2, "of train and dev"
    words = [row["clip_words"] for path in tables for row in map(RecordSource(path.parent).__getitem__, range(4))]
    assert all(len(one) == 1 and one[0].startswith("w") for one in words)
    plan = planned(stage_of(parts, "again", **changes), context)
    batch = next(plan.batches)
    plan.batches.close()
    tokens, rows = SpecialsConfig().make(), zip(batch["ids"], batch["mask"], strict=True)
    texts = [tokens.decode(row[mask].tolist()) for row, mask in rows]
    assert all(re.match(r"<\x00*w\d.*>", text) for text in texts), texts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / HEARD).glob("*/index.json")} == tables
    with pytest.raises(UserError, match="goes with a template that puts it somewhere"):
        stage_of(parts, **changes | {"template": PLAIN})


def test_a_generated_task_without_a_table_has_no_conversation():
    task = GeneratedTaskConfig(task=WRITE, stage="targets")
    item = TimedTones()[0]
    assert task.conversation(item, 16_000, np.random.default_rng(0)) is None
    said = task.conversation({**item, DRAW: 3, TARGET: "Well."}, 16_000, np.random.default_rng(0))
    assert said[-1].text == "Well." and said[:-1][0].text in WRITE.asks
    assert DESCRIBED.conversation({**item, "text": ""}, 16_000, np.random.default_rng(0)) is None
    (asked, _) = DESCRIBED.conversation(item, 16_000, np.random.default_rng(3))
    assert asked.text == f"low (0.38 s) {said[0].text}" and not asked.speech
