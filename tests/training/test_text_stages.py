"""The two stages that learn from texts: what they leave, that they learn, and that other stages take their models."""

import json
from typing import Any

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.t5 import t5_v1_1
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import open_part
from slm_jax.training.pre.span_corruption import SpanCorruptionStageConfig
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage

WHO, DOES = ("the cat", "a dog", "one bird"), ("eats", "sees", "likes")
TEXTS = [f"{a} {does} {b}" for a in WHO for does in DOES for b in WHO]
TINY = {"layers": 1, "width": 32, "heads": 2, "hidden": 48}
TRAINING: dict[str, Any] = {
    "batches": PipelineConfig(batch=8),
    "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
}
LM = TextLMConfig(
    name="lm", model=llama(vocabulary=264, **TINY, kv_heads=1), row_length=48, train=TrainConfig(steps=40), **TRAINING
)
SPANS = SpanCorruptionStageConfig(
    name="spans",
    model=t5_v1_1(vocabulary=272, **TINY, head_width=16, dropout=0.0),
    tokens=LearntTokensConfig(size=266),
    length=24,
    shuffled=0.25,
    sentinels=4,
    train=TrainConfig(steps=60),
    **TRAINING,
)
STAGES = {"lm": LM, "spans": SPANS}
RUN = RunConfig(name="texts", corpus=WorldConfig(hours=0.01), stages=(LM, SPANS))


class Sentences(StageContext):
    """Reads sentences instead of a corpus; every fourth item has no words."""

    def source(self, split: str, kinds: tuple[str, ...] | None = None) -> Any:
        texts = TEXTS[::5] if split == "dev" else TEXTS
        return [{"id": str(i), "text": text if i % 4 else ""} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A run in which both stages are done."""
    run = RunFolder(tmp_path_factory.mktemp("texts") / "run")
    found = Sentences(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        assert run_stage(stage, found) > 0
    return found


@pytest.mark.parametrize("name", STAGES)
def test_they_learn_what_the_texts_have_in_common(name, context):
    folder = context.run.stage(name)
    lines = [line["evaluate/nats_per_token"] for line in read_metrics(folder.path) if "evaluate/nats_per_token" in line]
    assert lines[-1] < 1.0 < np.log(STAGES[name].model.vocabulary) - 4  # what knowing nothing would cost
    logged = set().union(*read_metrics(folder.path))
    assert ("evaluate/nats_per_repeated_token" in logged) == (name == "spans")


@pytest.mark.parametrize("name", STAGES)
def test_other_stages_take_their_model(name, context):
    part = open_part(PartSource(path=f"frozen/{name}", source=f"stage:{name}"), context.run)
    assert part.config == STAGES[name].model == STAGES[name].planned_model(RUN)
    params = flatten_by_path(trained(context.run.stage(name))[1]["params"])
    found = flatten_by_path(unbox(part.params))
    assert found.keys() == params.keys()
    path = {"lm": "tokens/embedding", "spans": "decoder/tokens/embedding"}[name]
    np.testing.assert_array_equal(found[path][:, :], params[path])


@pytest.mark.parametrize("name", STAGES)
def test_outlines_are_those_of_a_real_batch(name, context):
    stage = STAGES[name]
    outline, plan = stage.outline(RUN), stage.plan(context.run.stage(name), context)
    try:
        real = next(plan.batches)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}


def test_texts_and_learnt_tokens_are_kept_and_items_without_words_are_not(context):
    folder = context.run.stage("spans")
    table = SPANS.texts(folder, context, "train")
    assert [table[i]["text"] for i in range(len(table))] == [text for i, text in enumerate(TEXTS) if i % 4]
    assert "tokenizer.json" in json.loads((folder.path / "done.json").read_text())["sha256"]
    tokens = SPANS.kept_tokens(folder)
    assert isinstance(tokens, TokenizerFileConfig) and tokens.make().decode(tokens.make().encode(TEXTS[0])) == TEXTS[0]
    assert tokens.make().size == 266


def test_tables_that_are_too_small_and_files_that_are_absent_are_refused(context, tmp_path):
    one, folder = SPANS.model, context.run.stage("fewer")
    small = one.replace(encoder=one.encoder.replace(vocabulary=269), decoder=one.decoder.replace(vocabulary=269))
    with pytest.raises(UserError, match=r"fewer.model.vocabulary is 269: its tokens are 270 ids"):
        SPANS.replace(name="fewer", model=small).plan(folder, context)
    absent = LM.replace(tokens=TokenizerFileConfig(path=str(tmp_path / "none.json")))
    with pytest.raises(UserError, match="no such file"):
        absent.check_outside(None)
