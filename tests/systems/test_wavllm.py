"""WavLLM: its counts, vectors of a clip, its template to the letter, factors row by row, instructions that fit."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.examples.speech_prompts import SpeechPromptExample
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.catalogue import stage_parameters
from slm_jax.systems.speech_aware import wavllm
from slm_jax.text.templates import WAVLLM
from tests.serving.drawn import noise
from tests.systems.drawn import drawn_wavllm, small_wavllm

TOLERANCE = 1e-4


def asked(seconds: float, words: str, seed: int = 0) -> tuple[Message, ...]:
    return (Message("user", (Speech(noise(seconds, seed), 16_000), Text(words))),)


@pytest.fixture(scope="module")
def system():
    return drawn_wavllm()


def test_what_is_trained_is_what_the_released_code_makes():
    config = wavllm.config("7b")

    def stream(width: int, inner: int) -> int:
        convs = 3 * width * 2 * inner + 2 * inner + 3 * inner * 2048 + 2048
        return convs + 2 * 1024 * 512 + 512 + 1024 + 2 * 1024 + 1024 * 2048 + 2048

    lora = 32 * 4 * 2 * 32 * 4096
    first = stream(1280, 640) + stream(768, 256) + 13 + 4096 * 4096 + 4096 + lora
    scale = 4096 * 1024 + 1024 + 1024 * 4096 + 4096 + 4096 + 1
    assert [stage_parameters(config, stage).trained for stage in config.stages] == [first, first + scale]


@pytest.mark.parametrize(("seconds", "vectors"), [(1.0, 13), (5.0, 63), (10.0, 125), (30.0, 375)])
def test_twelve_and_a_half_vectors_a_second(seconds, vectors):
    stage = wavllm.config("7b").stage(wavllm.SECOND)
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    assert model.frames_out(round(seconds * 16_000)) == vectors
    assert model.window == 480_000 and model.encoders[1].states == 13


def test_the_template_is_the_published_one():
    pieces = WAVLLM.pieces((*asked(1.0, "Who?"), Message("assistant", (Text("She."),))), True)
    at = next(i for i, piece in enumerate(pieces) if piece.clip is not None)
    before, after = ("".join(piece.text for piece in some) for some in (pieces[:at], pieces[at + 1 :]))
    assert before.startswith("<s>[INST]<<SYS>>\nAs a helpful language and speech assistant, you are able")
    assert before.endswith("using natural language.\n<</SYS>>\n\n<SPEECH>")
    assert after == " </SPEECH> Who? [/INST]She.</s>"


def test_the_second_stage_goes_on_with_a_prompt_adapter():
    for size in ("tiny", "7b"):
        first, second = wavllm.config(size).stages[-2:]
        assert (first.prompt_scale, second.goes_on, first.lora) == (None, first.name, second.lora)
        assert second.prompt_scale.start == 1.0 and second.asked > 0
    assert wavllm.config("7b").decoding == AnswerDecoding(max_new=512, temperature=0.5)
    with pytest.raises(UserError, match="asked is None: goes with prompt_scale"):
        second.replace(asked=None)
    with pytest.raises(UserError, match="there is no LoRA to count"):
        second.replace(lora=None)


def test_rows_of_a_batch_have_their_own_factors(system):
    """Two ways to ask for the same clip, together and alone; one is longer, so that the other's ids are padded."""
    said = [asked(0.9, "What?"), asked(0.9, "How loud is the voice, and how fast?"), asked(0.4, "What?", 1)]
    together = system.respond(said, None, jax.random.key(0))
    for one, wanted in zip(said[:2], together, strict=False):
        (alone,) = system.respond([one], None, jax.random.key(0))
        np.testing.assert_array_equal(alone.trace["ids"], wanted.trace["ids"])
        np.testing.assert_allclose(alone.trace["log_probs"], wanted.trace["log_probs"], atol=TOLERANCE)


def test_factors_are_felt_in_beams_and_in_scores(system):
    answered = [(*asked(0.9, "What?"), Message("assistant", (Text("Yes."),)))]
    params = system.variables["params"]
    up = params["prompt_scale"]["up"]
    silent = {**params, "prompt_scale": {**params["prompt_scale"], "up": {**up, "bias": up["bias"] - 100.0}}}
    off = dataclasses.replace(system, variables={**system.variables, "params": silent})
    without = dataclasses.replace(
        system, variables={**system.variables, "lora": jax.tree.map(lambda x: 0 * x, system.variables["lora"])}
    )
    counted, cut, none = (one.log_prob(answered)[0] for one in (system, off, without))
    np.testing.assert_allclose(cut, none, atol=1e-5)
    assert np.abs(counted - cut).max() > 1e-2
    (beams,) = system.respond([asked(0.9, "What?")], AnswerDecoding(max_new=3, beams=2), jax.random.key(0))
    assert len(beams.trace["n_best"]) == 2


def test_instructions_that_do_not_fit_are_left_out():
    stage, configs = small_wavllm()
    layout = stage.layout(stage.model(configs).config, stage.tokens.make())
    task = AskedTaskConfig(asks=("What is said?",))
    item = {"id": "a", "samples": noise(0.4), "text": "Yes."}
    example = SpeechPromptExample(layout, task, 16_000, 16_000, 400, asked=15)
    row = example(item, np.random.default_rng(0))
    assert (
        bytes((row["asked_ids"][row["asked_mask"]] - stage.tokens.make().encode("\0")[0]).tolist())
        == b'"What is said?"'
    )
    assert "instruction is longer than 14 ids" in dataclasses.replace(example, asked=14).problem(item)


def test_a_prompt_adapter_of_another_width_is_refused():
    stage, configs = small_wavllm()
    with pytest.raises(UserError, match=r"prompt_scale\.width is 8"):
        stage.replace(prompt_scale=PromptScaleConfig(width=8)).model(configs)
