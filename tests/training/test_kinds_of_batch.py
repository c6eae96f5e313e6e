"""A run of two kinds of batch: one program for each, an objective that sees which it is, resumed to the bit."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import Loss, Term
from slm_jax.data.interleaved import Interleaved
from slm_jax.data.pipeline import PipelineConfig, make_batches
from slm_jax.training.metrics import read_metrics
from slm_jax.training.step import Player
from tests.training.small_run import CONFIG, OPTIMIZER, digest, start

CONFIG = CONFIG.replace(steps=12, log_every=1, checkpoint_every_steps=6)
TEXT = [{"ids": np.arange(i, i + 5, dtype=np.int32) % 7} for i in range(9)]
SPEECH = [{"frames": np.full((4, 3), i / 9, np.float32)} for i in range(9)]


def batches():
    def of(source, rows, seed):
        return make_batches(source, lambda item, rng: item, PipelineConfig(batch=rows, seed=seed))

    return Interleaved({"text": (of(TEXT, 4, 0), 1.0), "speech": (of(SPEECH, 2, 1), 2.0)})


def initialise(key):
    return {"params": {"table": jax.random.normal(key, (7, 3)), "out": jnp.zeros((3, 7))}}


def objective(variables, batch, rng, frozen=None):
    """Text: the next id. Speech: a constant, through the same head."""
    params = variables["params"]
    if "ids" in batch:
        logits = params["table"][batch["ids"][:, :-1]] @ params["out"]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["ids"][:, 1:, None], -1)
        return Loss({"text": Term(nll.sum(), jnp.array(float(nll.size)))}, {"text_nll": (nll.sum(), nll.size)})
    error = jnp.square(batch["frames"] @ params["out"] - 1.0)
    return Loss({"speech": Term(error.sum(), jnp.array(float(error.size)))}, {"speech": (error.sum(), error.size)})


@pytest.fixture
def parts():
    made = [batches(), batches()]
    yield made
    for each in made:
        each.close()


def run(folder, source):
    players = [Player(name="lm", objective=objective, optimizer=OPTIMIZER)]
    return start(folder, CONFIG, initialise=initialise, players=players, batches=source)


def test_two_kinds_make_two_programs_and_go_on_to_the_bit(parts, tmp_path, caplog):
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        whole = run(tmp_path / "whole", parts[0])
    assert sum(line.startswith("Compiling jit(step)") for line in caplog.messages) == 2
    kinds = ["text" if "text_nll" in line else "speech" for line in read_metrics(tmp_path / "whole")]
    assert kinds == list(itertools.islice(itertools.cycle(["speech", "text", "speech"]), 12))

    run(tmp_path / "cut", parts[1])
    newest = tmp_path / "cut" / "checkpoints" / "00000012"
    newest.rename(newest.with_name("set-aside"))
    again = batches()
    assert digest(run(tmp_path / "cut", again).trees()) == digest(whole.trees())
    again.close()
