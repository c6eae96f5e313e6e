"""WavPrompt: its counts, a prompt of examples, an encoder whose convolutions stay, rows that no other row reaches."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.encoders.ssl_presets import wav2vec2_base
from slm_jax.interop.parts import fitting
from slm_jax.objectives.answers import Answers
from slm_jax.systems.catalogue import stage_parameters
from slm_jax.systems.speech_aware import wavprompt
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.tokenizers import TokenizerFileConfig
from tests.serving.drawn import noise
from tests.systems.drawn import drawn_wavprompt, small_wavprompt

TOLERANCE = 1e-4
ASK = wavprompt.TRANSCRIPTION.asks[0]


def clip(seconds: float, seed: int = 0) -> Message:
    return Message("user", (Speech(noise(seconds, seed), 16_000), Text(ASK)))


def reply(words: str) -> Message:
    return Message("assistant", (Text(words),))


@pytest.fixture(scope="module")
def system():
    return drawn_wavprompt()


def test_gpt2_is_frozen_and_the_encoder_and_a_convolution_are_trained():
    config = wavprompt.config("base")
    (stage,) = config.stages
    encoder, convolution, gpt2 = 94_371_712, 768 * 768 * 8 + 768, 124_439_808
    assert stage_parameters(config, stage) == (encoder + convolution + gpt2, encoder + convolution)


def test_ten_seconds_are_499_frames_and_62_vectors():
    (stage,) = wavprompt.config("base").stages
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    assert model.frames_heard(160_000) == 499
    assert model.frames_out(160_000) == 62
    assert model.frames_out(25 * 16_000) + 100 < stage.length < model.max_positions


def test_a_prompt_of_examples_is_clip_question_answer_and_nothing_else():
    said = (clip(1.0), reply("yes"), clip(0.5), reply("no"), clip(1.0))
    pieces = wavprompt.PROMPT.pieces(said, False)
    assert [piece.text if piece.clip is None else piece.clip for piece in pieces] == [
        0,
        ASK,
        "yes",
        1,
        ASK,
        "no",
        2,
        ASK,
    ]
    answered = wavprompt.PROMPT.pieces((clip(1.0), reply("yes")), True)
    assert [(piece.text, piece.answer) for piece in answered[1:]] == [
        (ASK, False),
        ("yes", True),
        (wavprompt.END, True),
    ]


def test_answers_of_examples_have_the_ids_that_were_learnt(tmp_path):
    """A tokenizer that joins the space of the question and the answer must not do so in an example either."""
    file = tmp_path / "tokenizer.json"
    file.write_text(LearntTokensConfig(size=300, specials=(wavprompt.END,)).learn([f"{ASK}hello"] * 4))
    tokens = TokenizerFileConfig(path=str(file)).make()
    layout = PromptLayout(tokens, wavprompt.PROMPT, frames_out=lambda samples: 2)
    learnt = layout.entries((clip(1.0), reply("hello")), True)
    shown = layout.entries((clip(1.0), reply("hello"), clip(1.0)), False)
    assert shown.ids[: len(learnt.ids) - 1].tolist() == learnt.ids[:-1].tolist()
    assert tokens.encode(f"{ASK}hello") != [*tokens.encode(ASK), *tokens.encode("hello")], "nothing would be joined"
    assert learnt.learnt.sum() == len(tokens.encode("hello")) + 1
    assert learnt.ids[-1] == tokens.special(wavprompt.END) and learnt.ids[0] == learnt.clip[0] == 0


def test_an_encoder_that_was_trained_otherwise_fits():
    """What acts in training only is the run's own; shapes, and whether the waveform is normalised, are the weights'."""
    source = wavprompt.config("base").stage("answers").parts[0]
    released = wav2vec2_base().replace(normalise_waveform=False)
    assert fitting(source, released) == source.expect
    with pytest.raises(UserError, match="normalise_waveform False -> True"):
        fitting(source, wav2vec2_base())


def test_the_rate_has_three_stages():
    stage = wavprompt.config("base").stage("answers")
    rate = stage.optimizer.schedule_for(stage.train.steps)
    found = [float(rate(n)) for n in (0, 10_000, 49_999, 75_000, 100_000)]
    assert found == pytest.approx([2e-6, 2e-4, 2e-4, 2e-4 * 0.05**0.5, 1e-5], rel=1e-4)


def test_the_convolutions_on_the_waveform_get_no_gradient(system):
    stage, _ = small_wavprompt()
    batch = system._batch([(clip(0.5), reply("yes"))], 1, answered=True)
    params = system.variables["params"]
    frozen = {"frozen": {"lm": params["lm"]}}
    own = {name: tree for name, tree in params.items() if name != "lm"}

    def loss(own):
        return Answers(system.model, stage.objective)({"params": own}, batch, None, frozen).terms["answer"].total

    gradients = flatten_by_path(jax.jit(jax.grad(loss))(own))
    felt = {path for path, leaf in gradients.items() if np.abs(leaf).max() > 0}
    assert not any("front_end" in path for path in felt)
    assert {"encoder/feature_projection/kernel", "adapter/conv_0/kernel"} <= felt


def test_rows_of_a_batch_are_what_they_are_alone(system):
    """One, three and nine conversations of different lengths; some show an example first."""
    shown = (clip(0.4, 20), reply("so it is"))
    said = [((*shown, clip(0.2 + 0.08 * i, i)) if i % 2 else (clip(0.2 + 0.08 * i, i),)) for i in range(9)]
    together = system.respond(said, None, jax.random.key(0))
    three = system.respond(said[:3], None, jax.random.key(1))
    alone = [system.respond([one], None, jax.random.key(2))[0] for one in said[:2]]
    for some in (three, alone):
        for mine, wanted in zip(some, together, strict=False):
            np.testing.assert_array_equal(mine.trace["ids"], wanted.trace["ids"])
            np.testing.assert_allclose(mine.trace["log_probs"], wanted.trace["log_probs"], atol=TOLERANCE)
    assert len({tuple(one.trace["ids"]) for one in together}) > 1, "they all say the same: nothing is compared"


def test_prompts_that_leave_no_room_are_refused(system):
    many = tuple(part for i in range(12) for part in (clip(0.2, i), reply("so it is said, and so it shall be")))
    with pytest.raises(UserError, match="positions"):
        system.respond([(*many, clip(0.2))], None, jax.random.key(0))


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match=r"'bass'.*did you mean 'base'"):
        wavprompt.config("bass")
