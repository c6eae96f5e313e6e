"""SALMONN: its stages, its template to the letter, 88 vectors for any clip, and rows that no other row reaches."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, spoken
from slm_jax.core.trees import count_parameters
from slm_jax.nn.lora import LoRAModel
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.catalogue import outlined, stage_parameters
from slm_jax.systems.speech_aware import salmonn
from slm_jax.text.templates import VICUNA
from tests.serving.drawn import noise
from tests.systems.drawn import drawn_salmonn, small_salmonn

TOLERANCE = 1e-4
SIZES = {"7b": (32, 4096), "13b": (40, 5120)}
"""Size -> layers, width."""


def asked(seconds: float, words: str, seed: int = 0) -> tuple[Message, ...]:
    return (Message("user", (Speech(noise(seconds, seed), 16_000), Text(words))),)


@pytest.fixture(scope="module")
def system():
    return drawn_salmonn()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_trained_is_what_was_published(size):
    """33.3 M of 13 B: Q-Former 22.84 M, map, two norms, one query, LoRA of rank 8 on queries and values."""
    layers, width = SIZES[size]
    config = salmonn.config(size)
    attention, norm, square = 4 * (768 * 768 + 768), 2 * 768, 768 * 768
    cross = attention + 2 * (2048 * 768 - square)
    qformer = 2 * (attention + cross + 2 * 768 * 3072 + 3072 + 768 + 3 * norm) + norm
    lora = layers * 2 * 2 * 8 * width
    trained = qformer + (768 + 1) * width + 2 * (1280 + 768) + 768 + lora
    assert round(qformer / 1e6, 2) == 22.84
    for stage in config.stages:
        assert stage_parameters(config, stage).trained == trained
    assert (round(trained / 1e6, 1) == 33.3) == (size == "13b")
    frozen = outlined(config, config.stages[0])[0].frozen["frozen"]
    table = 2 * 32_001 * width
    assert (count_parameters(frozen["lm"]["tokens"]) + count_parameters(frozen["lm"]["head_kernel"])) == table
    assert round(count_parameters(frozen["encoder"]) / 1e6) == 637
    assert round(count_parameters(frozen["encoder_1"]) / 1e6) == 90


@pytest.mark.parametrize("seconds", [0.1, 1.0, 30.0])
def test_any_clip_is_88_vectors(seconds):
    stage = salmonn.config("13b").stage("pretraining")
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    assert model.frames_out(round(seconds * 16_000)) == 88
    assert [encoder.frame_count(480_000) for encoder in model.encoders] == [1500, 1496]
    assert model.window == 480_000


def test_the_template_is_the_published_one():
    pieces = VICUNA.pieces((*asked(1.0, "Describe it."), Message("assistant", (Text("A dog."),))), True)
    at = next(i for i, piece in enumerate(pieces) if piece.clip is not None)
    before, after = pieces[:at], pieces[at + 1 :]
    assert "".join(piece.text for piece in before) == "<s>USER: <Speech>"
    assert "".join(piece.text for piece in after if not piece.answer) == "</Speech> Describe it.\nASSISTANT:"
    assert "".join(piece.text for piece in after if piece.answer) == "A dog.</s>"


def test_three_stages_go_on_from_each_other_and_the_last_counts_lora_less():
    for size in ("tiny", "13b"):
        config = salmonn.config(size)
        first, second, third = config.stages[-3:]
        assert [first.goes_on, second.goes_on, third.goes_on] == [None, first.name, second.name]
        assert [stage.lora_factor for stage in (first, second, third)] == [1.0, 1.0, salmonn.LESS]
        assert first.parts == second.parts == third.parts and first.lora == third.lora
        assert config.answers == third.name
    rate = first.optimizer.schedule_for(first.train.steps)
    assert [float(rate(n)) for n in (0, 3_000, 90_000)] == pytest.approx([1e-6, 3e-5, 1e-5], rel=1e-5)


def test_the_factor_of_a_stage_is_that_of_training_and_of_what_is_served(system):
    """LoRA at half its size is the same as half of B; in decoding 2 stands for twice as much as in training."""
    stage, configs = small_salmonn()
    halved, whole = stage.model(configs), stage.replace(lora_factor=1.0).model(configs)
    assert isinstance(halved, LoRAModel) and dict(halved.factors) == {"default": 0.5}
    config = salmonn.config("tiny")
    players = [outlined(config, one)[0].players[0] for one in config.stages[-2:]]
    assert [player.objective.model.factors for player in players] == [None, halved.factors]
    smaller = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf / 2 if path[-1].key == "b" else leaf, system.variables["lora"]
    )
    said = [(*asked(1.0, "Hm?"), Message("assistant", (Text("Yes."),)))]
    half, same, full = (
        dataclasses.replace(system, model=model, variables=variables).log_prob(said)[0]
        for model, variables in (
            (halved, system.variables),
            (whole, system.variables | {"lora": smaller}),
            (whole, system.variables),
        )
    )
    np.testing.assert_allclose(half, same, atol=1e-5)
    assert np.abs(half - full).max() > 1e-2
    assert dict(system._weighed(2.0).factors) == {"default": 1.0}
    with pytest.raises(UserError, match=r"lora_factor is 0\.5: there is no LoRA"):
        stage.replace(lora=None)


def test_rows_of_a_batch_are_what_they_are_alone(system):
    """One, three and nine conversations of different lengths, clips shorter than a token of BEATs among them."""
    lengths = (0.9, 0.1, 0.5, 1.0, 0.3, 0.7, 0.2, 0.8, 0.6)
    said = [asked(s, "What? " * (1 + i % 3), seed=i) for i, s in enumerate(lengths)]
    together = system.respond(said, None, jax.random.key(0))
    three = system.respond(said[:3], None, jax.random.key(1))
    alone = [system.respond([one], None, jax.random.key(2))[0] for one in said[:2]]
    for some in (three, alone):
        for mine, wanted in zip(some, together, strict=False):
            np.testing.assert_array_equal(mine.trace["ids"], wanted.trace["ids"])
            np.testing.assert_allclose(mine.trace["log_probs"], wanted.trace["log_probs"], atol=TOLERANCE)
    assert len({tuple(reply.trace["ids"]) for reply in together}) > 1, "they all say the same: nothing is compared"


def test_what_a_clip_holds_is_heard(system):
    one, other = ((*asked(1.0, "What?", seed), Message("assistant", (Text("Yes."),))) for seed in (0, 1))
    first, second = system.log_prob([one, other])
    assert np.abs(first - second).max() > 0.01


def test_clips_that_are_too_long_or_empty_are_refused(system):
    with pytest.raises(UserError, match=r"clip 1 of 1\.5 s: .*at most 1 s at once"):
        system.respond([spoken(noise(1.5), 16_000)], None, jax.random.key(0))
    with pytest.raises(UserError, match="there must be something to hear"):
        system.respond([spoken(np.zeros(0, np.float32), 16_000)], None, jax.random.key(0))


def test_beams_of_the_published_decoding(system):
    published = salmonn.config("13b").decoding
    assert published == AnswerDecoding(max_new=200, beams=4)
    (reply,) = system.respond([asked(1.0, "What?")], published.replace(max_new=4, beams=2), jax.random.key(0))
    assert len(reply.trace["n_best"]) == 2


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match=r"'13'.*did you mean '13b'"):
        salmonn.config("13")
