"""Style on tones that are loud or soft, high or low: a classifier learns it, its classes and clusters are tokens."""

import numpy as np
import pytest

from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.labelled_speech import LabelsConfig, world_labels
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.style import StyleStageConfig
from slm_jax.training.pre.style_tokens import StyleTokensConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from slm_jax.training.token_stage import planned_spec, token_stage
from tests.shapes import ENCODERS

HOP = 320
taught = pytest.mark.slow(seconds=25)
"""What stands on a trained classifier."""
LABELS = LabelsConfig(fields=("energy", "register"), values=(("soft", "loud"), ("low", "high")))
STYLE = StyleStageConfig(
    name="style",
    encoder=ENCODERS["log_mel"].replace(dropout=0.0, attention_dropout=0.0),
    labels=LABELS,
    projection=8,
    window=10,
    clip_s=0.4,
    train=TrainConfig(steps=40, log_every=20),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=0),
)
CLASSES = StyleTokensConfig(name="classes", source="stage:style")
CLUSTERS = StyleTokensConfig(name="clusters", source="stage:style", kmeans=KMeansConfig(clusters=6), window=5)
RUN = RunConfig(name="run", corpus=WorldConfig(), stages=(STYLE, CLASSES, CLUSTERS))


class Tones:
    """The last one does not say how it is spoken."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        rng, loud, high = np.random.default_rng(index), index % 2, index // 2 % 2
        count = 6400 + 700 * (index % 3)
        wave = np.sin(2 * np.pi * (300, 1500)[high] * np.arange(count) / 16_000) + 0.1 * rng.standard_normal(count)
        labels = {"energy": ("soft", "loud")[loud], "register": ("low", "high")[high]}
        labels = labels if index < 16 else {"energy": "", "register": ""}
        return {"id": str(index), "samples": ((200, 12_000)[loud] * wave).astype(np.int16), **labels}


class Context(StageContext):
    lengths = (8_000,)

    def source(self, split, kinds=None):
        return Tones({"train": 17, "dev": 4, "test": 3}[split])


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("style"))
    made = Context(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        run_stage(stage, made)
    return made


def rows_of(stage, context, split="train"):
    table = RecordSource(stage.records(context.finished(stage.name), split))
    return [table[i] for i in range(len(table))]


@taught
def test_the_manners_are_learnt_and_told_apart_on_held_out_tones(context):
    lines = read_metrics(context.finished("style").path)
    assert [line["evaluate/accuracy"] for line in lines if "evaluate/accuracy" in line][-1] == 1.0
    assert trained(context.finished("style"))[0].model_of(context.finished("style")) == (STYLE.model, "")


@taught
def test_the_class_of_every_window_is_a_token(context):
    rows, tones = rows_of(CLASSES, context), Tones(17)
    for row, tone in zip(rows[:16], (tones[i] for i in range(16)), strict=True):
        assert len(row["style"]) == STYLE.model.frame_count(len(tone["samples"])) == 2 + (len(tone["samples"]) > 6700)
        assert row["style"][0] == LABELS.class_of(tone)


@taught
def test_clusters_of_another_window_are_tokens_too(context):
    rows = rows_of(CLUSTERS, context, "test")
    assert all(row["style"].max() < 6 for row in rows)
    assert len({tuple(row["style"][:1]) for row in rows}) > 1
    assert len(rows[0]["style"]) == STYLE.model.replace(window=5).frame_count(6400) == 4


@taught
@pytest.mark.parametrize("stage", [CLASSES, CLUSTERS], ids=["classes", "clusters"])
def test_the_tokenizer_makes_what_the_table_holds(context, stage):
    tokenizer, spec = stage.tokenizer(context), token_stage(context, stage.name).spec(context)
    assert isinstance(tokenizer, Tokenizer) and spec == tokenizer.spec == planned_spec(RUN, stage.name)
    assert spec.hop == (stage.window or 10) * HOP and spec.sizes == (6 if stage.kmeans else 4,) and spec.runs is None
    waveforms = [Tones(3)[i]["samples"].astype(np.float32) / 32768 for i in range(3)]
    for row, ids in zip(rows_of(stage, context, "test"), tokenizer.encode_all(waveforms), strict=True):
        np.testing.assert_array_equal(ids, row["style"])
    with pytest.raises(UserError, match="shorter than one frame"):
        tokenizer.encode_all([np.zeros(10, np.float32)])


@taught
def test_the_outline_has_the_shapes_of_a_batch(context):
    outline, plan = STYLE.outline(RUN), STYLE.plan(context.finished("style"), context)
    batch = next(plan.batches)
    plan.batches.close()
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in outline.batch.items()
    }


def test_labels_are_combinations_in_order():
    assert LABELS.names == ("soft low", "soft high", "loud low", "loud high")
    world = world_labels("energy", "rate")
    assert world.fields == ("energy", "speaking_rate") and world.count == 9 and LabelsConfig().count == 27
    with pytest.raises(UserError, match="energy of item 'x' is 'shouted': one of soft, loud"):
        LABELS.class_of({"id": "x", "energy": "shouted", "register": "low"})
    with pytest.raises(UserError, match="styles"):
        world_labels("mood")


def test_a_recording_as_one_window_has_no_hop_and_no_tokens():
    whole = SSLClassifierConfig(encoder=STYLE.encoder, classes=3)
    assert whole.frame_count(16_000) == 1
    with pytest.raises(UserError, match="window is None"):
        _ = whole.hop
