"""The stage of CTC: its batches, what it leaves out, what it learns, and where it may begin."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli import align
from slm_jax.cli.console import run_verb
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import ManifestConfig, WorldConfig, prepare_corpus
from slm_jax.data.examples.spoken_item import spoken_item
from slm_jax.data.examples.transcribed_speech import LETTERS
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.run_reader import run_reader
from slm_jax.training.stage_model import stage_model
from slm_jax.training.stages import RunConfig, StageContext
from tests.shapes import ENCODERS

WORDS = {"low": 300, "hi": 2400}
SAMPLES = 8000
STAGE = CTCStageConfig(
    name="ctc",
    encoder=ENCODERS["log_mel"].replace(dropout=0.0, attention_dropout=0.0),
    longest_s=0.5,
    longest_text=8,
    train=TrainConfig(steps=180, log_every=10),
    batches=PipelineConfig(batch=4),
    optimizer=OptimizerConfig(learning_rate=2e-2),
)
RUN = RunConfig(name="small", corpus=WorldConfig(hours=0.01), stages=(STAGE,))


class Tones:
    """A tone says which word it is; the last two have no text and no room."""

    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, (word, hz) = np.random.default_rng(index), list(WORDS.items())[index % 2]
        count = SAMPLES - 300 * (index % 5) + 9000 * (index == 13)
        tone = np.sin(2 * np.pi * hz * np.arange(count) / 16_000 + rng.uniform(0, 6)) + 0.05 * rng.standard_normal(
            count
        )
        return {"id": str(index), "samples": (8000 * tone).astype(np.int16), "text": "" if index == 12 else word}


class Context(StageContext):
    """Reads tones instead of a corpus."""

    def source(self, split: str, kinds: Any = None) -> Any:
        return Tones() if split == "train" else [Tones()[i] for i in range(5)]


def carry_out(stage: CTCStageConfig, context: StageContext) -> Any:
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
def folder(context):
    return carry_out(STAGE, context)


def test_it_learns_to_read_and_tells_so(folder, said):
    lines = read_metrics(folder.path)
    nats, errors = ([line[f"evaluate/{name}"] for line in lines if f"evaluate/{name}" in line][-1]
                    for name in ("nats_per_character", "character_error_rate"))  # fmt: skip
    assert nats < 0.2 and errors < 0.05
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] > 5 * losses[-1] and lines[0]["unfit"] == 0
    assert "stage ctc: 2 of 14 items of train are too long or have no text: left out" in said


def test_the_encoder_can_be_taken_out(folder):
    config, params = stage_model(folder)
    assert config == STAGE.encoder == STAGE.planned_model(RUN)
    wanted = trained(folder)[1]["params"]
    assert params.keys() == wanted["encoder"].keys() and wanted.keys() == {"encoder", "head"}


def test_shapes_are_those_of_a_real_batch(context):
    outline, plan = STAGE.outline(RUN), STAGE.plan(context.run.stage("other"), context)
    try:
        real = next(plan.batches)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    shapes = [jax.eval_shape(each.initialise, jax.random.key(0)) for each in (outline, plan)]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *shapes))
    assert outline.tokens == 4 * STAGE.encoder.frame_count(SAMPLES) and outline.speech_s == 4 * 0.5


def test_it_may_begin_with_the_encoder_of_an_earlier_stage(folder, context):
    stage = STAGE.replace(
        name="again",
        start_from="stage:ctc",
        tokenizer=LETTERS.replace(characters=LETTERS.characters + "é"),
        train=TrainConfig(steps=1),
        optimizer=OptimizerConfig(learning_rate=1e-9),
    )
    assert stage.needs == ("ctc",) and STAGE.needs == ()
    before, after = (trained(one)[1]["params"] for one in (folder, carry_out(stage, context)))
    for old, new in zip(*map(jax.tree.leaves, (before["encoder"], after["encoder"])), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-7)
    assert after["head"]["kernel"].shape[1] == before["head"]["kernel"].shape[1] + 1


def test_an_encoder_of_another_shape_is_refused(folder, context):
    wider = STAGE.replace(name="wider", start_from="stage:ctc", encoder=STAGE.encoder.replace(hidden=24))
    with pytest.raises(UserError, match=r"another shape \(expected -> weights\): hidden 24 -> 32"):
        wider.plan(context.run.stage("wider"), context)
    with pytest.raises(UserError, match="there is no such folder"):
        STAGE.replace(start_from="nowhere").check_outside(None)


def test_a_head_alone_learns_on_an_encoder_that_stays_as_it_is(folder, context):
    both = STAGE.replace(name="both", with_head=True, train=TrainConfig(steps=60))
    stage = both.replace(name="head", start_from="stage:both", take="encoder", head_only=True)
    carry_out(both, context)
    made = carry_out(stage, context)
    assert trained(made)[1]["params"].keys() == {"head"}
    losses = [line["loss"] for line in read_metrics(made.path) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    outline = jax.tree.leaves(stage.outline(RUN.replace(stages=(both, stage))).frozen)
    kept = trained(context.run.stage("both"))[1]["params"]["encoder"]
    assert sum(leaf.size for leaf in outline) == sum(leaf.size for leaf in jax.tree.leaves(kept))


def test_a_manifest_gets_the_times_of_its_words(folder, context, tmp_path, capsys):
    tones, lines = Tones(), []
    for place in range(3):
        write_wav(tmp_path / f"{place}.wav", tones[place]["samples"] / 32_768, 16_000)
        lines.append({"audio_filepath": f"{place}.wav", "text": tones[place]["text"].upper(), "id": str(place)})
    write_wav(tmp_path / "long.wav", tones[13]["samples"] / 32_768, 16_000)
    lines += [{"audio_filepath": "none.wav", "text": "low"}, {"audio_filepath": "long.wav", "text": "hi"}]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "timed" / "all.jsonl"
    out.parent.mkdir()
    assert run_verb(align.main, [str(context.run.path), str(tmp_path / "all.jsonl"), str(out), "--stage", "ctc"]) == 0
    told = capsys.readouterr()
    assert "3 of 5 lines" in told.out and "line 4: " in told.err and "the stage takes 0.5 and 8" in told.err
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(line.get("words", ())) for line in written] == [1, 1, 1, 0, 0]
    times = run_reader(context.run.path, "ctc").times([tones[place] for place in range(3)])
    for line, found in zip(written, times, strict=False):
        (word,) = line["words"]
        assert word["word"] == line["text"] and 0 <= word["start"] < word["end"] <= 0.5
        assert word["start"] == pytest.approx(float(found.start_s[0]), abs=0.03)
    corpus = ManifestConfig(path=str(out), processes=1)
    prepare_corpus(corpus, tmp_path / "data", progress=False)
    source = StageContext(RunFolder(tmp_path / "run"), corpus, tmp_path / "data").source("train")
    items = [source[i] for i in range(len(source))]
    assert all(spoken_item(item, ()).whole.words == (item["text"],) for item in items if item["id"] in "012")
    with pytest.raises(UserError, match="is not done, or trained no CTC"):
        run_reader(context.run.path, "other")


@pytest.mark.parametrize("field", [{"head_only": True}, {"take": "encoder"}])
def test_what_is_kept_must_come_from_somewhere(field):
    with pytest.raises(UserError, match="goes with start_from"):
        STAGE.replace(**field)
