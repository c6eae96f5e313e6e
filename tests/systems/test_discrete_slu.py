"""DiscreteSLU: its sizes and compressions, how long a clip becomes, replies that depend on nobody else's clip."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import count_parameters
from slm_jax.parallel.sharding import unbox
from slm_jax.systems.catalogue import outlined
from slm_jax.systems.speech_aware import discrete_slu
from slm_jax.text.templates import clips_of
from slm_jax.training.gradient_stage import GradientStageConfig
from tests.serving.drawn import noise
from tests.serving.drawn_units import drawn_discrete_slu

ASKED = "What is said?"


def asked(seconds: float, seed: int = 0) -> tuple[Message, ...]:
    return (Message("user", (Speech(noise(seconds, seed), 16_000), Text(ASKED))),)


@pytest.mark.parametrize("size", ["tiny", "7b"])
@pytest.mark.parametrize("compression", discrete_slu.COMPRESSIONS)
def test_a_compression_is_what_the_answers_are_made_of(size, compression):
    config = discrete_slu.config(size, compression)
    pairs, answers = compression == "bpe", config.stage("answers")
    assert ("byte_pairs" in [stage.name for stage in config.stages]) == pairs
    assert answers.units.stage == ("byte_pairs" if pairs else "clusters")
    assert answers.units.runs == (compression != "none")
    ids = {"tiny": (200, 600), "7b": (2000, 6000)}[size][pairs]
    assert answers.encoder.units == ids and config.stage("clusters").clusters == ids if not pairs else 0.3 * ids
    longest = answers.units.most / answers.clip_s
    assert longest == {"none": 50, "dedup": 45, "bpe": 27.5}[compression]


def test_the_published_size_reads_layer_21_of_wavlm_large_and_trains_table_adapter_and_lora():
    config = discrete_slu.config("7b", "none", weights="folder")
    clusters, answers = config.stage("clusters"), config.stage("answers")
    encoder = clusters.features.part.expect
    assert (clusters.features.layer, clusters.clusters, clusters.features.part.source) == (
        21,
        2000,
        "folder/wavlm-large",
    )
    assert (encoder.layers, encoder.width, encoder.frame_count(480_000)) == (24, 1024, 1499)
    lm = answers.parts[0].expect
    assert (lm.layers, lm.width, lm.heads, lm.kv_heads, lm.hidden, lm.vocabulary) == (32, 4096, 32, 8, 14336, 32000)
    assert answers.parts[0].frozen and answers.lora.rank == 8
    assert answers.adapter.frames_out(1499) == 750, "a clip of 30 s"


@pytest.mark.parametrize("compression, ids", [("none", 2000), ("bpe", 6000)])
def test_the_published_adapter_has_as_many_parameters_as_its_shape_says(compression, ids):
    config = discrete_slu.config("7b", compression)
    shapes = outlined(config, config.stage("answers"))[1]
    d, hidden, lm = 1024, 4096, 4096
    norm, conv = 2 * d, 3 * d * d + d
    layer = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 2 * norm
    wanted = ids * d + conv + 4 * layer + norm + d * lm + lm
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == wanted
    lora = sum(leaf.size for leaf in jax.tree.leaves(shapes["lora"]))
    assert lora == 32 * 8 * (2 * 4096 + 4096 + 1024)  # query and value, whose heads are 8 of 128
    frozen = outlined(config, config.stage("answers"))[0].frozen["frozen"]
    assert count_parameters(unbox(frozen)) == 7_241_732_096  # MistralForCausalLM of mistralai/Mistral-7B-v0.1


def test_without_transcripts_it_is_judged_by_them_all_the_same():
    config = discrete_slu.config("tiny", transcripts=False)
    assert [part.name for part in config.stage("answers").mixture.parts] == ["questions", "instructions"]
    assert [part.name for part in config.judges[0].tasks.parts] == ["transcription", "questions", "instructions"]
    assert config.keeps.kinds == ("sentence", "question_answer", "instruction")


def test_without_an_adapter_units_are_rows_of_the_table_of_words():
    answers = discrete_slu.config("7b", "bpe", adapter=False).stage("answers")
    assert (answers.encoder.units, answers.encoder.width) == (6000, 4096)
    assert answers.adapter.frames_out(825) == 825 == answers.units.most
    assert answers.length - 825 >= discrete_slu.config("7b", "bpe").stage("answers").length - 413


def test_the_prompt_of_the_published_size():
    answers = discrete_slu.config("7b").stage("answers")
    said = (*asked(0.1), Message("assistant", (Text("Yes."),)))
    pieces = [("<clip>" if piece.clip is not None else piece.text) for piece in answers.template.pieces(said, True)]
    assert "".join(pieces) == "<s>[INST] <clip>\nWhat is said? [/INST]Yes.</s>"


@pytest.fixture(scope="module")
def system():
    return drawn_discrete_slu("bpe")


@pytest.mark.parametrize("count", [3, 9])
def test_a_reply_is_the_same_in_any_batch(system, count):
    conversations = [asked(0.4 + 0.17 * i, seed=i) for i in range(count)]
    together = system.respond(conversations, None, jax.random.key(0))
    for place in (0, 1, count - 1):
        (alone,) = system.respond([conversations[place]], None, jax.random.key(0))
        np.testing.assert_array_equal(alone.trace["ids"], together[place].trace["ids"])
        np.testing.assert_allclose(alone.trace["log_probs"], together[place].trace["log_probs"], atol=1e-4)
    likely = system.log_prob([(*one, Message("assistant", (Text("a"),))) for one in conversations])
    assert len({float(row[0]) for row in likely}) == count, "what hears nothing would pass as well"


def test_two_clips_are_read_in_their_order(system):
    first, second = (clips_of(asked(0.6, seed))[0] for seed in (1, 2))
    answer = Message("assistant", (Text("ab"),))
    a, b = ((Message("user", (one, Text("and"), other)), answer) for one, other in ((first, second), (second, first)))
    there, back = system.log_prob([a, b])
    assert np.abs(there - back).max() > 1e-3


def test_clips_that_give_no_unit_are_refused_by_the_number_of_their_conversation(system):
    with pytest.raises(UserError, match=r"conversation 1: .*shorter than one frame"):
        system.respond([asked(0.5), asked(0.02)], None, jax.random.key(0))


def test_unknown_sizes_and_compressions_name_the_nearest():
    with pytest.raises(UserError, match=r"'7bb'.*did you mean '7b'"):
        discrete_slu.config("7bb")
    with pytest.raises(UserError, match=r"compression is 'dedupe'.*did you mean 'dedup'"):
        discrete_slu.config("tiny", "dedupe")


def test_the_tiny_twin_is_tiny():
    config = discrete_slu.config("tiny")
    for stage in config.stages:
        if isinstance(stage, GradientStageConfig):
            assert sum(leaf.size for leaf in jax.tree.leaves(outlined(config, stage)[1]["params"])) < 2_500_000
