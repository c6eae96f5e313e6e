"""The stage that tunes Whisper: what it learns, where it may begin, new rows of the table, what it leaves out."""

from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.nn.lora import LoRAConfig
from slm_jax.serving.task_whisper import TaskDecoding, TaskWhisper
from slm_jax.text.whisper_tokens import WhisperFolderConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.whisper_rows import AuxiliaryCTCConfig
from slm_jax.training.post.whisper_tuning import WhisperTuningStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stage_model import stage_model
from slm_jax.training.stages import RunConfig, StageContext
from tests.serving.drawn_whisper import TOKENS
from tests.shapes import WHISPER
from tests.whisper_folder import write_whisper

SMALL = WHISPER.replace(encoder=WHISPER.encoder.replace(layers=1), decoder=WHISPER.decoder.replace(layers=1))
HZ, LEVELS = {"low": 400, "hi": 2600}, {"soft": 800, "loud": 12_000}
SAMPLES = 4800
TONE = PartConfig(name="tone", weight=1.0, example=AskedTaskConfig(asks=("<|transcribe|>",)))
LEVEL = PartConfig(name="level", weight=1.0, example=AskedTaskConfig(asks=("<|level|>",), answers=("{level}",)))
WORDS = LEVEL.replace(name="level_in_words", example=LEVEL.example.replace(asks=("how loud.", "is it soft.")))
SHARED = {"clip_s": 0.3, "length": 20, "batches": PipelineConfig(batch=8)}
FIRST = WhisperTuningStageConfig(
    name="first",
    model=SMALL.replace(decoder=SMALL.decoder.replace(vocabulary=TOKENS.size)),
    tokens=TOKENS,
    tasks=MixtureConfig(parts=(TONE,)),
    ctc=AuxiliaryCTCConfig(weight=0.5, tasks=("tone",), longest=4),
    train=TrainConfig(steps=60, log_every=20, evaluate_every=60),
    optimizer=OptimizerConfig(learning_rate=2e-2, weight_decay=0.1),
    **SHARED,
)
SECOND = FIRST.replace(
    name="second",
    model=None,
    goes_on="first",
    specifiers=("<|level|>",),
    tasks=MixtureConfig(parts=(TONE, LEVEL, WORDS)),
    train=TrainConfig(steps=150, log_every=50, evaluate_every=150),
)
RUN = RunConfig(name="small", corpus=WorldConfig(hours=0.01), stages=(FIRST, SECOND))
NO_STEP = {"train": TrainConfig(steps=1), "optimizer": OptimizerConfig(learning_rate=1e-9)}


class Tones:
    """A tone is low or high, and soft or loud; the last two have no text and no room."""

    def __len__(self) -> int:
        return 26

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, word, level = np.random.default_rng(index), list(HZ)[index % 2], list(LEVELS)[index // 2 % 2]
        count = SAMPLES - 300 * (index % 3) + 1200 * (index == 25)
        tone = np.sin(2 * np.pi * HZ[word] * np.arange(count) / 16_000 + rng.uniform(0, 6))
        samples = LEVELS[level] * (tone + 0.05 * rng.standard_normal(count))
        return {
            "id": str(index),
            "samples": samples.astype(np.int16),
            "text": "" if index == 24 else word,
            "level": level,
        }


class Context(StageContext):
    """Reads tones instead of a corpus."""

    def source(self, split: str, kinds: Any = None) -> Any:
        return Tones() if split == "train" else [Tones()[i] for i in range(6)]


def carry_out(stage: WhisperTuningStageConfig, context: StageContext) -> Any:
    folder = context.run.stage(stage.name)
    folder.begin(stage, {})
    folder.finish(stage.run(folder, context))
    return folder


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def context(tmp_path_factory, said):
    folder = tmp_path_factory.mktemp("run")
    return Context(RunFolder(folder), RUN.corpus, folder / "data", progress=False, say=said.append)


@pytest.fixture(scope="module")
def first(context):
    return carry_out(FIRST, context)


@pytest.fixture(scope="module")
def second(context, first):
    return carry_out(SECOND, context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Whisper of a hub."""
    return write_whisper(tmp_path_factory.mktemp("hub") / "whisper", SMALL)


def flat(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def last(folder, name):
    return [line[f"evaluate/{name}"] for line in read_metrics(folder.path) if f"evaluate/{name}" in line][-1]


def test_it_learns_to_write_down_and_tells_what_it_leaves_out(first, said):
    assert last(first, "nats_per_token") < 0.2 < last(first, "nats_per_token_other_speech")
    assert "stage first, tone: of 26 train items are left out: 1 (no answer); 1 (the clip is too long)" in said


def test_what_is_asked_decides_what_is_answered(second):
    config, params, prompts = SECOND.finished(second)
    system = TaskWhisper(config, params, prompts, TaskDecoding(max_new=5, beams=2))
    items = [Tones()[index] for index in range(4)]
    clips = [Speech(item["samples"] / np.float32(32768), 16_000) for item in items]
    for words, field in (("<|transcribe|>", "text"), ("<|level|>", "level"), ("how loud.", "level")):
        asked = [(Message("user", (clip, Text(words))),) for clip in clips]
        found = [reply.messages[0].text for reply in system.respond(asked, None, jax.random.key(0))]
        assert found == [item[field] for item in items], words
    tasks = [last(second, f"nats_per_token/{name}") for name in ("tone", "level", "level_in_words")]
    assert max(tasks) < 0.3
    assert 3 * last(second, "ctc_nats_per_letter") < last(second, "ctc_nats_per_letter_other_speech")


def test_sinusoids_stay_and_the_model_can_be_taken_out(first, second):
    before, after = (trained(one)[1]["params"]["whisper"]["encoder"]["positions"] for one in (first, second))
    np.testing.assert_array_equal(before, after)
    config, params = stage_model(second)
    assert config == SECOND.planned_model(RUN) and config.decoder.vocabulary == TOKENS.size + 1
    assert params.keys() == {"encoder", "decoder"}


def test_shapes_are_those_of_a_real_batch(context, first):
    outline, plan = SECOND.outline(RUN), SECOND.plan(context.run.stage("other"), context)
    try:
        real = next(plan.batches)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    shapes = [jax.eval_shape(each.initialise, jax.random.key(0)) for each in (outline, plan)]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *shapes))
    assert (outline.tokens, outline.speech_s) == (8 * 20, 8 * 0.3) and SECOND.needs == ("first",)


def test_it_begins_with_the_weights_of_a_hub_and_new_rows_for_specifiers(folder, context):
    part = PartSource(path="params/whisper", source=str(folder), frozen=False)
    spoken = AskedTaskConfig(asks=("<|level|> <|tones|>", "w1 w2"), answers=("w3",))
    stage = WhisperTuningStageConfig(
        name="hub",
        part=part,
        tokens=WhisperFolderConfig(folder=str(folder), size=38),
        specifiers=("<|level|>", "<|tones|>", "<|more|>", "<|and_more|>"),
        tasks=spoken,
        **SHARED,
        **NO_STEP,
    )
    stage.check_outside(None)
    done = carry_out(stage, context)
    config, params, prompts = stage.finished(done)
    assert config.decoder == SMALL.decoder.replace(vocabulary=42) and prompts.prefix("<|tones|>")[2] == 39
    old, new = flat(stage_model_of(folder)), flat(params)
    table = "['decoder']['tokens']['embedding']"
    np.testing.assert_allclose(new[table][:41], old[table], atol=1e-6)
    assert new[table].shape[0] == 42 and np.abs(new[table][41]).max() > 0.1, "drawn as the others are spread"
    for path in old.keys() - {table}:
        np.testing.assert_allclose(new[path], old[path], atol=1e-6)
    assert (done.path / "tokenizer.json").is_file() and stage.check_outside(done) is None


def stage_model_of(folder):
    from slm_jax.interop.parts import open_source

    return open_source(str(folder))[1]


def test_lora_goes_on_beside_the_weights_and_into_them(context, first):
    stage = SECOND.replace(
        name="lora",
        lora=LoRAConfig(targets="whisper/.*/(query|value)", rank=2),
        tasks=MixtureConfig(parts=(TONE, WORDS)),
        specifiers=(),
        ctc=None,
        train=TrainConfig(steps=2),
    )
    done = carry_out(stage, context)
    old, new = (flat(trained(one)[1]["params"]["whisper"]) for one in (first, done))
    assert all(np.array_equal(old[path], new[path]) for path in old), "they are as they were"
    merged = flat(stage.finished(done)[1])
    moved = {path for path in old if not np.array_equal(old[path], merged[path])}
    assert moved and all("query" in path or "value" in path for path in moved)
    with pytest.raises(UserError, match="a model only together with that"):
        stage_model(done)
    after = stage.replace(name="after", goes_on="lora", lora=None).plan(context.run.stage("after"), context)
    after.batches.close()
    begun = flat(after.start_from()["whisper"])
    assert all(np.array_equal(begun[path], merged[path]) for path in merged)


def test_with_lora_the_table_is_trained_where_it_has_new_rows(context):
    lora = LoRAConfig(targets="whisper/.*/(query|value)", rank=2)
    for stage, rows in (
        (SECOND.replace(lora=lora), True),
        (SECOND.replace(lora=lora, specifiers=(), tasks=TONE.example, ctc=None), False),
    ):
        outline = stage.outline(RUN)
        (player,) = outline.players
        paths = ["/".join(one) for one in (("params", "whisper", "decoder", "tokens", "embedding"), ("lora", "x", "a"))]
        assert [player.owns(path) for path in paths] == [rows, True]
        assert not player.owns("params/whisper/decoder/places/embedding")


REFUSED = {
    "part, goes_on and model": lambda: FIRST.replace(goes_on="other"),
    "is params/whisper, and trained on": lambda: SECOND.replace(
        goes_on=None, part=PartSource(path="params/lm", source="x")
    ),
    "drawn weights are trained as a whole": lambda: FIRST.replace(lora=LoRAConfig(targets=".*")),
    "ctc.tasks": lambda: FIRST.replace(ctc=AuxiliaryCTCConfig(tasks=("sum",))),
    "must be a task": lambda: FIRST.replace(tasks=MixtureConfig(parts=(PartConfig(name="a", weight=1.0),))),
    "a window of this model is 0.32 s": lambda: FIRST.replace(clip_s=0.4).outline(RUN),
    "the decoder has 24 positions": lambda: FIRST.replace(length=25).outline(RUN),
    "they are not of this model": lambda: SECOND.replace(
        goes_on=None, model=None, tokens=WhisperFolderConfig(folder="x"), part=PART
    ).outline(RUN),
    "weight": lambda: AuxiliaryCTCConfig(weight=1.0),
}
PART = PartSource(path="params/whisper", source="x", frozen=False, expect=WHISPER)


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused(message):
    with pytest.raises(UserError, match=message):
        REFUSED[message]()


def test_a_task_without_items_says_why(context):
    stage = FIRST.replace(name="none", clip_s=0.05)
    with pytest.raises(UserError, match=r"no train item can be used for 'tone' .*'the clip is too long': 25"):
        stage.plan(context.run.stage("none"), context)
