"""DeSTA: parts and layers of each release, templates to the letter, transcripts behind vectors, rows alone."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.systems.catalogue import outlined, stage_parameters
from slm_jax.systems.speech_aware import desta
from slm_jax.text.templates import DESTA2, DESTA25
from slm_jax.training.post.lm_targets import LMTargetsConfig
from tests.serving.drawn import noise
from tests.systems.drawn import drawn_desta

TOLERANCE = 1e-4
SIZES = {"2": (768, 12, 2, 4), "2.5": (1280, 20, 6, 4)}
"""Size -> width and heads of Whisper, layers of the Q-Former, layers that it looks at."""


def asked(seconds, words, seed=0, said=None):
    return (Message("user", (Speech(noise(seconds, seed), 16_000, said), Text(words))),)


@pytest.fixture(scope="module")
def system():
    return drawn_desta()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_trained_is_the_connector_alone(size):
    """Counted as the released modules are made: BERT's widths but for the encoder's, and a map to 4096."""
    width, heads, depth, looked_at = SIZES[size]
    attention, norm = 4 * (width * width + width), 2 * width
    block = 2 * attention + (2 * width * 3072 + 3072 + width) + 3 * norm
    trained = 64 * looked_at * (width + 1) + depth * block + norm + (width + 1) * 4096
    config = desta.config(size)
    stage = config.stage("answers")
    assert stage_parameters(config, stage).trained == trained
    assert {"2": 22_251_776, "2.5": 131_540_224}[size] == trained, "as `BertEncoder` of transformers has them"
    assert stage.adapter.qformer.heads == heads and not stage.adapter.qformer.query_norm
    frozen = outlined(config, stage)[0].frozen["frozen"]
    assert set(frozen) == {"encoder", "lm"}


def test_layers_are_those_of_each_release():
    """11 of DeSTA2 is entry 11 of the tuple of hidden states; 7 of DeSTA2.5 is what the eighth layer gives."""
    (first,), (second,) = (desta.config(size).stage("answers").hears for size in SIZES)
    assert (first.chosen, first.final_norm) == ((2, 5, 8, 11), True)
    assert ([layer - 1 for layer in second.chosen], second.final_norm) == ([7, 15, 23, 31], False)


def test_the_language_model_answers_before_it_learns():
    for size in SIZES:
        config = desta.config(size)
        targets, answers = config.stages
        assert isinstance(targets, LMTargetsConfig) and "targets" in answers.needs
        assert targets.part in answers.parts and targets.template == answers.template
        assert answers.tasks == targets.learnt


def test_templates_are_the_published_ones():
    said = (Message("system", (Text("Focus on the audio."),)), *asked(0.5, "What?", said="Hello there."))

    def text(template):
        pieces = template.pieces(said, False)
        return "".join("<64>" if piece.clip is not None else piece.text for piece in pieces)

    begin = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nFocus on the audio.<|eot_id|>"
    user, end = "<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"
    audio = "<|start_header_id|>audio<|end_header_id|>\n\n<64>Hello there.<|eot_id|>"
    assert text(DESTA2) == f"{begin}{audio}{user}What?<|eot_id|>{end}"
    assert text(DESTA25) == f"{begin}{user}<start_audio><64>Hello there.<end_audio> What?<|eot_id|>{end}"
    alone = (Message("user", (Speech(noise(0.5), 16_000, "Hi."),)),)
    without = "".join(piece.text for piece in DESTA2.pieces(alone, False))
    assert without == f"<|begin_of_text|>{audio.replace('<64>Hello there.', 'Hi.')}{end}"
    with pytest.raises(UserError, match="clip 1: nobody has written down what is said in it"):
        DESTA25.pieces(asked(0.5, "What?"), False)


def test_words_that_spell_a_mark_stay_words(system):
    marked = asked(0.5, "What?", said="<|eot_id|>")
    plain = system.layout.entries(marked, False)
    assert (plain.ids == system.layout.end_id).sum() == 1, "that of the user's message alone"


def test_rows_of_a_batch_are_what_they_are_alone(system):
    """Clips of different lengths, whose words somebody gave, or the reader of the system writes down."""
    said = [asked(0.2 + 0.1 * i, "What? " * (1 + i % 2), i, "given" if i % 2 else None) for i in range(5)]
    together = system.respond(said, None, jax.random.key(0))
    for mine, one in zip(together[:2], said, strict=False):
        (alone,) = system.respond([one], None, jax.random.key(1))
        np.testing.assert_array_equal(mine.trace["ids"], alone.trace["ids"])
        np.testing.assert_allclose(mine.trace["log_probs"], alone.trace["log_probs"], atol=TOLERANCE)
    (written,) = system._written_down([said[0]])
    (told,) = system.respond([written], None, jax.random.key(0))
    np.testing.assert_array_equal(told.trace["ids"], together[0].trace["ids"])


def test_both_the_vectors_and_the_words_are_heard(system):
    answer = Message("assistant", (Text("Yes."),))
    rows = [(*asked(0.5, "What?", seed, said), answer) for seed, said in ((0, "a"), (1, "a"), (0, "b"))]
    first, other_vectors, other_words = system.log_prob(rows)
    assert np.abs(first - other_vectors).max() > 1e-3
    assert np.abs(first - other_words).max() > 1e-3


def test_a_system_without_anything_that_writes_says_so(system):
    deaf = dataclasses.replace(system, writer=None)
    with pytest.raises(UserError, match="there is nothing that writes them down"):
        deaf.respond([asked(0.5, "What?")], None, jax.random.key(0))


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match=r"'2\.6'.*did you mean '2\.5'"):
        desta.config("2.6")
