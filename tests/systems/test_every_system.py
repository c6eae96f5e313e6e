"""What holds of every named system and every size of it, found without training any.

A new system gets a line in `DRAWN`; its counts come into `counts.json` by `python -m tests.systems.test_every_system`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.contracts import System
from slm_jax.core.messages import spoken
from slm_jax.core.trees import flatten_by_path, partition
from slm_jax.parallel.sharding import unbox
from slm_jax.systems.catalogue import described, modules, named_config, outlined
from slm_jax.training.gradient_stage import GradientStageConfig, Outline
from slm_jax.training.post.whisper_tuning import WhisperTuningStageConfig
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.texts import TextStageConfig
from slm_jax.training.step import check_players, trained_leaves
from tests.serving.drawn import drawn_unit_speech_lm, noise
from tests.serving.drawn_cascade import drawn_cascade
from tests.serving.drawn_codes import drawn_duplex
from tests.serving.drawn_one_stream import drawn_speechgpt, drawn_spirit_lm
from tests.serving.drawn_prosodic import drawn_prosodic_speech_lm
from tests.serving.drawn_slm import drawn_slm
from tests.serving.drawn_units import drawn_discrete_slu
from tests.serving.drawn_whisper import drawn_task_whisper
from tests.systems.drawn import drawn_desta, drawn_ltu_as, drawn_salmonn, drawn_wavllm, drawn_wavprompt
from tests.systems.drawn_bestow import drawn_bestow
from tests.systems.drawn_qwen_audio import drawn_qwen_audio

DRAWN = {
    "gslm": drawn_unit_speech_lm,
    "twist": drawn_unit_speech_lm,
    "pgslm": drawn_prosodic_speech_lm,
    "audiolm": drawn_cascade,
    "moshi": drawn_duplex,
    "speechgpt": drawn_speechgpt,
    "spirit_lm": drawn_spirit_lm,
    "qwen_audio": drawn_qwen_audio,
    "discrete_slu": drawn_discrete_slu,
    "slm": drawn_slm,
    "desta": drawn_desta,
    "salmonn": drawn_salmonn,
    "wavprompt": drawn_wavprompt,
    "ltu_as": drawn_ltu_as,
    "wavllm": drawn_wavllm,
    "bestow": drawn_bestow,
    "universlu": drawn_task_whisper,
}
"""Name of a system -> its serving form on drawn weights; systems that share one are tried once."""
CONSTANT = {
    DurationStageConfig: r"params/generator/(?!durations/)",
    WhisperTuningStageConfig: r"params/whisper/encoder/positions$",
}
"""What a kind of stage keeps beside what its players own: path pattern of leaves that nobody changes."""
COUNTS = Path(__file__).with_name("counts.json")
EVERY = [f"{name}:{size}" for name, module in modules().items() for size in module.CARD.sizes]


def outlines(config: Any) -> Iterator[tuple[GradientStageConfig, Outline, Any]]:
    """Every stage of a run that trains by gradient: it, its outline, the shapes of its variables."""
    for stage in config.stages:
        if isinstance(stage, GradientStageConfig):
            outline, shapes = outlined(config, stage)
            yield stage, outline, unbox(shapes)


@pytest.mark.parametrize("name", EVERY)
def test_a_config_survives_json(name):
    config = named_config(name)
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", EVERY)
def test_it_has_the_kept_numbers_of_parameters(name):
    assert described(named_config(name))["parameters"] == json.loads(COUNTS.read_text())[name]


def test_every_kept_number_is_of_a_size_that_is_there():
    assert sorted(json.loads(COUNTS.read_text())) == sorted(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_every_stage_says_what_its_batches_are(name):
    for stage, outline, shapes in outlines(named_config(name)):
        assert jax.tree.leaves(shapes) and outline.batch and outline.tokens > 0, stage.name
        assert (outline.speech_s > 0) != isinstance(stage, TextStageConfig), stage.name
        assert all(shape.shape[0] % stage.train.accumulate == 0 for shape in outline.batch.values() if shape.shape)


@pytest.mark.parametrize("name", EVERY)
def test_every_leaf_has_one_owner_or_is_constant(name):
    for stage, outline, shapes in outlines(named_config(name)):
        check_players(outline.players, shapes)  # nobody shares a leaf
        moved = {name for player in outline.players if player.statistics for name in player.statistics.collections}
        rest = flatten_by_path(partition(shapes, trained_leaves(outline.players))[1])
        left = [path for path in rest if path.partition("/")[0] not in moved]
        kept = getattr(stage, "kept", None)
        pattern = CONSTANT.get(type(stage)) if kept is None else f"params/({kept})"
        assert [path for path in left if pattern is None or not re.match(pattern, path)] == [], stage.name
        assert pattern is None or left, f"{stage.name} keeps nothing constant"


@pytest.mark.parametrize("make", dict.fromkeys(DRAWN.values()), ids=lambda make: make.__name__)
def test_on_drawn_weights_it_answers_by_the_contract(make):
    system = make()
    assert isinstance(system, System)
    (reply,) = system.respond([spoken(noise(1.0), system.rate_hz)], None, jax.random.key(0))
    assert {kind for message in reply.messages for kind in message.kinds} == set(system.writes)
    for message in reply.messages:
        assert all(np.isfinite(clip.samples).all() and clip.rate_hz == system.rate_hz for clip in message.speech)


def test_every_system_is_drawn_and_reads_and_writes_what_its_card_says():
    assert set(DRAWN) == set(modules())
    for name, module in modules().items():
        system = DRAWN[name]()
        assert (set(module.CARD.reads), set(module.CARD.writes)) == (system.reads, system.writes), name


if __name__ == "__main__":
    counts = {name: described(named_config(name))["parameters"] for name in EVERY}
    COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
