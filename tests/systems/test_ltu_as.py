"""LTU-AS: its counts, its curriculum, its template to the letter, a transcript for who has none."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import matching
from slm_jax.data.examples.speech_prompts import SpeechPromptExample
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.examples.transcript_tasks import TranscriptTaskConfig
from slm_jax.systems.catalogue import outlined, stage_parameters
from slm_jax.systems.speech_aware import ltu_as
from slm_jax.text.templates import LTU_AS
from tests.serving.drawn import noise
from tests.systems.drawn import drawn_ltu_as

ITEM = {"id": "a", "samples": noise(0.4), "text": "Anna lives here.", "energy": "soft", "heard": "Anna leaves here."}


def asked(words: str, seed: int = 0) -> tuple[Message, ...]:
    return (Message("user", (Speech(noise(0.8, seed), 16_000), Text(words))),)


def test_what_is_trained_is_what_was_published():
    """Stage 1 the map; then TLTR, map and LoRA of rank 8 on queries and values: 195 MB in float32."""
    config, width, lm = ltu_as.config("7b"), 1280, 4096
    projection = width * lm + lm
    block = 4 * width**2 + 3 * width + 8 * width**2 + 5 * width + 4 * width
    trained = projection + 2 * block + 32 * 2 * 2 * 8 * lm
    assert trained == 48_793_600
    found = [stage_parameters(config, stage).trained for stage in config.stages]
    assert found == [projection, trained, trained]


def test_the_curriculum():
    for size in ("tiny", "7b"):
        first, second, third = ltu_as.config(size).stages[-3:]
        assert [stage.goes_on for stage in (first, second, third)] == [None, first.name, second.name]
        assert first.lora is None and second.lora == third.lora == ltu_as.LORA
        assert first.tasks == second.tasks != third.tasks
        assert {stage.targets for stage in (first, second, third)} == {"all"}
        owned = outlined(ltu_as.config(size), first)[0].players[0].owns
        assert owned("params/adapter/map/kernel") and not owned("params/adapter/over_time/mlp/up/kernel")
        assert matching(f"params/(?:{ltu_as.TLTR_ALONE})")("params/adapter/over_layers/mlp/up/kernel")
    rates = [stage.optimizer.learning_rate for stage in ltu_as.config("7b").stages]
    assert rates == [1e-3, 1e-4, 2e-4]


@pytest.mark.parametrize("seconds", [0.1, 3.0, 10.0])
def test_any_clip_is_25_vectors_of_all_layers(seconds):
    stage = ltu_as.config("7b").stage(ltu_as.THIRD)
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    assert model.frames_out(round(seconds * 16_000)) == 25
    assert model.window == 160_000 and model.encoder.width == 32 * 1280


def test_the_template_is_the_published_one():
    said = (*asked("How?"), Message("system", (Text("Hi."),)), Message("assistant", (Text("So."),)))
    pieces = LTU_AS.pieces(said, True)
    assert pieces[0].clip == 0, "speech stands before everything"
    words = "".join(piece.text for piece in pieces)
    assert words == "<s>### Instruction:\nHow?\n\n### Input:\nHi.\n\n### Response:\nSo.</s>"
    bare = "".join(piece.text for piece in LTU_AS.pieces(asked("How?"), False))
    assert bare == "<s>### Instruction:\nHow?\n\n### Response:\n"


def test_every_word_of_a_row_is_learnt():
    listener = drawn_ltu_as().listener
    layout = dataclasses.replace(listener.layout, targets="all")
    task = TranscriptTaskConfig(task=AskedTaskConfig(asks=("How loud?",), answers=("{energy}",)))
    row = SpeechPromptExample(layout, task, 16_000, 16_000, 128)(ITEM, np.random.default_rng(0))
    words = (row["speech_at"] == -1) & row["mask"]
    np.testing.assert_array_equal(row["target_weight"] > 0, words)
    assert words.sum() == len("### Instruction:\nHow loud?\n\n### Input:\nAnna lives here.\n\n### Response:\nsoft") + 2


def test_a_transcript_is_the_corpus_own_or_a_field_of_it():
    task = TranscriptTaskConfig(task=AskedTaskConfig(asks=("What?",)))
    rng = np.random.default_rng(0)
    own, heard = (one.conversation(ITEM, 16_000, rng) for one in (task, task.replace(field="heard")))
    assert [message.role for message in own] == ["user", "system", "assistant"]
    assert (own[1].text, heard[1].text) == ("Anna lives here.", "Anna leaves here.")
    none = task.replace(field="nothing").conversation(ITEM, 16_000, rng)
    assert [message.role for message in none] == ["user", "assistant"]
    assert task.reads == task.task.reads and task.key(ITEM) == "" and task.words(ITEM) == ("Anna lives here.",)


def test_who_has_no_transcript_gets_one():
    system = drawn_ltu_as()
    told = system.told([asked("How?"), (*asked("How?"), Message("system", (Text("Mine."),)))])
    assert [one[1].text for one in told] == ["Hello.", "Mine."]
    first, second = system.respond([asked("How?"), told[1]], None, jax.random.key(0))
    assert (first.trace["heard"], second.trace["heard"]) == ("Hello.", "Mine.")
    given = system.listener.respond([told[0]], None, jax.random.key(0))[0]
    np.testing.assert_array_equal(first.trace["ids"], given.trace["ids"])
    one, other = (
        system.log_prob([(*asked("How?", seed), Message("assistant", (Text("Yes."),)))])[0] for seed in (0, 1)
    )
    assert np.abs(one - other).max() > 1e-3, "what a clip holds is heard"


def test_longer_clips_are_refused():
    with pytest.raises(UserError, match="at most 1 s at once"):
        drawn_ltu_as().respond([(Message("user", (Speech(noise(1.2), 16_000), Text("?"))),)], None, jax.random.key(0))
    with pytest.raises(UserError, match="LTU-AS size is '7B': must be one of tiny, 7b"):
        ltu_as.config("7B")
