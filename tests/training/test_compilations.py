"""Length buckets bound compilation: one program of the training step per bucket, and none more in later epochs."""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.data.buckets import BucketConfig
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.pipeline import Batches, PipelineConfig, make_batches
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.training.loop import TrainConfig, train
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player
from tests.shapes import DECODER

BUCKETS = BucketConfig(lengths=(8, 16, 32))
EPOCH = 24
"""Batches per epoch: 48 sequences of every length from 2 to 32, two to a batch."""


class Watched(Batches):
    """Batches whose lengths are written down."""

    def __next__(self):
        batch = super().__next__()
        LENGTHS.append(batch["ids"].shape[1])
        return batch


LENGTHS: list[int] = []


def test_as_many_programs_as_buckets_and_none_in_the_second_epoch(tmp_path, caplog):
    model = DECODER.make()
    rng = np.random.default_rng(0)
    source = [{"units": rng.integers(0, 16, size=2 + i % 31)} for i in range(2 * EPOCH)]
    batches = make_batches(source, UnitTextConfig().make(), PipelineConfig(batch=2), buckets=BUCKETS)
    batches.__class__ = Watched
    player = Player(name="lm", objective=NextTokenConfig().make(model), optimizer=OptimizerConfig(warmup_steps=0))
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        train(
            tmp_path,
            TrainConfig(steps=2 * EPOCH),
            initialise=lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32)),
            players=[player],
            batches=batches,
            progress=False,
        )
    batches.close()
    compiled = [line for line in caplog.messages if line.startswith("Compiling jit(step)")]
    assert set(LENGTHS[:EPOCH]) == set(BUCKETS.lengths)
    assert len(LENGTHS) == 2 * EPOCH
    assert len(compiled) == len(BUCKETS.lengths)
