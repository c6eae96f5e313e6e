"""A stage that learns to answer is trained on a corpus of tasks that `prepare --tasks` made."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from slm_jax.checkpoints.model_folder import save_model
from slm_jax.data.corpus import ManifestConfig, TaskCorpusConfig, prepare_corpus
from slm_jax.data.examples.named_tasks import named_tasks
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.shards.make import make_shards
from slm_jax.data.shards.tasks import TaskShardsConfig
from slm_jax.data.shards.workers import by_workers
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage
from tests.contracts.checks import random_params
from tests.training.small_answers import ENCODER, LM, Tones, stage_of

NAMES = ("transcription", "question", "instruction")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of examples out of a manifest of tones that say a word."""
    folder, rows, tones = tmp_path_factory.mktemp("tones"), [], Tones(6)
    for i in range(6):
        item = tones[i]
        soundfile.write(folder / f"{i}.wav", item["samples"], 16_000)
        rows.append({"audio_filepath": f"{i}.wav", "text": "low hi"[: 3 + 3 * (i % 2)], "split": "train"})
    rows[-1]["split"] = "dev"
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = ManifestConfig(path=str(folder / "all.jsonl"), processes=1)
    prepare_corpus(corpus, folder / "data", progress=False)
    work = TaskShardsConfig(corpus=corpus, tasks=named_tasks(NAMES, corpus), data_dir=str(folder / "data"), per_shard=2)
    make_shards(work, folder / "tasks", partial(by_workers, processes=1), progress=False)
    return TaskCorpusConfig(path=str(folder / "tasks"))


@pytest.mark.slow(seconds=20)
def test_it_learns_from_every_kind(tasks, tmp_path):
    wider, ids = LM.replace(max_positions=160), jnp.zeros((1, 2), jnp.int32)
    save_model(tmp_path / "encoder", ENCODER, random_params(ENCODER.make(), jax.random.key(2), jnp.zeros((1, 4_000))))
    save_model(tmp_path / "lm", wider, random_params(wider.make(), jax.random.key(3), ids))
    parts = tuple(
        PartConfig(name=name, weight=1.0, example=AnsweredTaskConfig(kinds=(name,), asks=())) for name in NAMES
    )
    stage = stage_of(tmp_path, tasks=MixtureConfig(parts=parts), length=160, train=TrainConfig(steps=3, log_every=1))
    said = []
    context = StageContext(RunFolder(tmp_path / "run"), tasks, tmp_path, progress=False, say=said.append)
    run_stage(stage, context)
    losses = [row["loss"] for row in read_metrics(context.run.stage("answers").path) if "loss" in row]
    assert len(losses) >= 3 and np.isfinite(losses).all() and losses[-1] < losses[0]
    assert not any("left out" in line for line in said)
