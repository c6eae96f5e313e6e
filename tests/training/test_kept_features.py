"""What frozen encoders make of clips, kept: of several encoders, for tasks that hear the same, where it is cheaper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.records import RecordSource
from slm_jax.nn.lora import LoRAConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from tests.contracts.checks import random_params
from tests.training.small_answers import (
    ENCODER,
    LM,
    TASKS,
    WRITE,
    MeasuringContext,
    assert_same,
    carry_out,
    context_of,
    stage_of,
    weights,
    with_part,
    write_parts,
)

ONE = TrainConfig(steps=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.mark.slow(seconds=30)
def test_features_of_two_encoders_train_alike(parts, tmp_path):
    samples = jnp.zeros((1, 4_000))
    save_model(tmp_path / "other", ENCODER, random_params(ENCODER.make(), jax.random.key(5), samples))
    stage = stage_of(parts, train=TrainConfig(steps=2, log_every=1), join=JoinedConfig(widths=(ENCODER.width,) * 2))
    other = PartSource(path="frozen/encoder_1", source=str(tmp_path / "other"))
    stage = stage.replace(parts=(stage.parts[0], other, stage.parts[1]))
    folders = [tmp_path / "drawn", tmp_path / "kept"]
    for folder in folders:
        carry_out(stage.replace(cache=folder.name == "kept"), context_of(folder, kind=MeasuringContext))
    assert_same(*(weights(folder) for folder in folders), 1e-5)
    first, second = (read_metrics(folder / "stages" / "answers") for folder in folders)
    for name in ("loss", "evaluate/nats_per_word", "evaluate/nats_per_word_other_speech"):
        found = [[line[name] for line in lines if name in line] for lines in (first, second)]
        np.testing.assert_allclose(*found, rtol=1e-4, err_msg=name)
    rows = [RecordSource(table)[0] for table in (folders[1] / "features").iterdir()]
    differ = [np.abs(row["features"] - row["features_1"]).max() for row in rows if len(row["features"])]
    assert differ and min(differ) > 0.1


def test_tasks_that_hear_the_same_share_a_table(parts, tmp_path):
    again = PartConfig(name="again", weight=1.0, example=WRITE.replace(asks=("Which?",)))
    stage = stage_of(parts, cache=True, train=ONE, tasks=MixtureConfig(parts=(*TASKS.parts, again)))
    carry_out(stage, context_of(tmp_path))
    assert len(list((tmp_path / "features").iterdir())) == 2, "of both tasks that hear, and of the one that reads"


def keeps(stage, model, items, context):
    kept = stage._kept(model, context)
    return kept.wanted(stage.cache, items, stage.train.steps * stage.batches.batch, stage.clip_s, context)


def test_features_are_kept_where_that_is_cheaper(parts, tmp_path):
    said = []
    many = stage_of(parts, cache=None, train=ONE.replace(steps=400))
    context = context_of(tmp_path, said)
    model = many.model({"frozen/encoder": ENCODER, "frozen/lm": LM})
    assert keeps(many, model, 10, context) and "since 800 are drawn" in said[0]
    assert not keeps(many, model, 1000, context) and len(said) == 1
    assert not keeps(many.replace(cache=False), model, 10, context)


LORA_EVERYWHERE = LoRAConfig(targets=".*/attention/(query|value)", rank=2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stage: stage.replace(lora=LORA_EVERYWHERE), "LoRA changes the encoder"),
        (lambda stage: with_part(stage, "encoder", path="params/encoder", frozen=False), "the encoder is trained"),
    ],
)
def test_features_of_an_encoder_that_changes_are_not_kept(parts, tmp_path, change, told):
    stage = change(stage_of(parts, cache=None, train=ONE.replace(steps=400)))
    context = context_of(tmp_path)
    model = stage.model({part.path: ENCODER if "encoder" in part.path else LM for part in stage.parts})
    assert not keeps(stage, model, 10, context)
    with pytest.raises(UserError, match=f"cache is True: features are not kept: {told}"):
        keeps(stage.replace(cache=True), model, 10, context)
