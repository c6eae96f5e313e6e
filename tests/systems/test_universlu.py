"""UniverSLU: its prompts as published, its sizes, and the tiny twin from recordings to judged answers."""

import os
from pathlib import Path

import jax
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.corpora.world_instructions import TASKS
from slm_jax.data.corpus import WorldConfig
from slm_jax.interop.families import family_of
from slm_jax.interop.parts import fitting, source_config
from slm_jax.serving.task_whisper import TaskDecoding
from slm_jax.systems.catalogue import stage_parameters
from slm_jax.systems.speech_aware import universlu
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.whisper_tokens import PlainPromptsConfig, WhisperFolderConfig
from slm_jax.training.post.whisper_tuning import WhisperTuningStageConfig

WHISPER_BASE = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "nowhere")) / "whisper-base"
WEIGHTS = {"base": 72_593_920, "medium": 763_857_920}
"""As transformers counts `WhisperForConditionalGeneration`."""


@pytest.mark.parametrize("size", WEIGHTS)
def test_a_size_is_whisper_with_rows_for_the_specifiers_and_ctc(size):
    config = universlu.config(size)
    width = {"base": 512, "medium": 1024}[size]
    for stage in config.stages:
        assert stage_parameters(config, stage).all == WEIGHTS[size] + 6 * width + 29 * (width + 1)


# What the config.json of openai/whisper-medium says, as far as it bears on the shape.
MEDIUM = {"model_type": "whisper", "d_model": 1024, "num_mel_bins": 80, "vocab_size": 51_865}
MEDIUM |= {f"{name}_layers": 24 for name in ("encoder", "decoder")}
MEDIUM |= {f"{name}_attention_heads": 16 for name in ("encoder", "decoder")}
MEDIUM |= {f"{name}_ffn_dim": 4096 for name in ("encoder", "decoder")}


def test_the_published_size_fits_the_weights_that_it_begins_with():
    part = universlu.config("medium").stage("specifiers").part
    found = family_of(MEDIUM).read_config(MEDIUM)
    assert fitting(part, found) == part.expect and not part.frozen
    assert part.source == "hub:openai/whisper-medium" == universlu.config("medium").stage("specifiers").tokens.folder
    assert part.expect.encoder.trim is False and part.expect.encoder.frame_count(1) == 1500
    with pytest.raises(UserError, match="another shape"):
        fitting(part, found.replace(decoder=found.decoder.replace(layers=3)))


def test_stages_tasks_and_decoding_are_those_of_the_recipe():
    tiny, medium = universlu.config(), universlu.config("medium", start_from="weights")
    assert [stage.name for stage in tiny.stages] == ["transcription", "specifiers", "instructions"]
    assert [stage.name for stage in medium.stages] == ["specifiers", "instructions"]
    assert medium.stage("specifiers").part.source == "weights" and tiny.stage("specifiers").goes_on == "transcription"
    assert medium.decoding == TaskDecoding(beams=20, token_bonus=0.2, length_penalty=0.0)
    for config in (tiny, medium):
        assert isinstance(config.answering, WhisperTuningStageConfig)
        assert len(config.answering.mixture.parts) == 12 == 2 * len(config.stage("specifiers").mixture.parts)
        assert all(stage.ctc is not None for stage in config.stages)
    with pytest.raises(UserError, match=r"'mediun'.*did you mean 'medium'"):
        universlu.config("mediun")


def test_specifiers_stand_alone_and_options_stand_in_the_question():
    prompts = TaskPrompts(PlainPromptsConfig().make(), universlu.SPECIFIERS)
    first = PlainPromptsConfig().size
    start, english, end = (
        prompts.tokens.tokenizer.special(f"<|{name}|>") for name in ("startoftranscript", "en", "notimestamps")
    )
    asked = {part.name: part.example.asks for part in universlu.IN_BOTH_FORMS.parts}
    assert prompts.prefix(asked["rate"][0]) == [start, english, first, first + 5, end]
    assert prompts.prefix(asked["intent"][0]) == [start, english, first + 4, first + 5, end]
    for name, wordings in asked.items():
        task = name.removesuffix("_in_words")
        options = universlu.TOPICS if task == "intent" else TASKS[task].labels
        if name.endswith("in_words"):
            assert len(wordings) >= 3 and all(option in ask for ask in wordings for option in options)
            assert all(len(prompts.prefix(ask)) == 3 + len(ask) for ask in wordings), "no new tokens"


@pytest.mark.skipif(not WHISPER_BASE.is_dir(), reason="SLM_JAX_REAL_WEIGHTS names no folder with whisper-base")
def test_base_fits_the_real_weights_and_tokens():
    stage = universlu.config("base", start_from=str(WHISPER_BASE)).stage("specifiers")
    fitting(stage.part, source_config(str(WHISPER_BASE)))
    prompts = TaskPrompts(WhisperFolderConfig(folder=str(WHISPER_BASE)).make(), universlu.SPECIFIERS)
    assert prompts.prefix("<|en|> <|rate|> <|world|>") == [50258, 50259, 51865, 51870, 50363]
    longest = [ask for part in universlu.IN_BOTH_FORMS.parts for ask in part.example.asks]
    assert max(len(prompts.prefix(ask)) for ask in longest) + 24 <= stage.length


@pytest.mark.slow(seconds=60)
def test_the_tiny_twin_runs_from_recordings_to_an_answer(tmp_path):
    """One step of every stage on a few sentences; what it then says is nothing, but comes by the contract."""
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, judging_context, run_stages

    whole = universlu.config()
    encoder = universlu.tiny_whisper(PlainPromptsConfig().size).encoder.replace(layers=1, width=16, heads=2, hidden=16)
    small = whole.stage("transcription").model
    model = small.replace(
        encoder=encoder, decoder=small.decoder.replace(layers=1, width=16, heads=2, hidden=16, context_width=16)
    )
    stages = tuple(
        stage.replace(
            train=stage.train.replace(steps=1, evaluate_every=None),
            optimizer=stage.optimizer.replace(warmup_steps=0),
            model=model if stage.model else None,
        )
        for stage in whole.stages
    )
    corpus = WorldConfig(hours=0.01, speakers=4, styles=("rate", "energy"), test_share=0.3, dev_share=0.1, processes=1)
    config = whole.replace(stages=stages, corpus=corpus, decoding=TaskDecoding(max_new=4, beams=2))
    context = StageContext(RunFolder(tmp_path / "run"), corpus, tmp_path / "data", progress=False)
    assert [name for name, _ in run_stages(config, context)] == ["transcription", "specifiers", "instructions"]
    kept = judging_context(config, context.run, tmp_path / "data")
    asked = config.prompts(kept, 12)
    assert len(asked) == 12 and asked["rate_1"][0].text == "<|rate|> <|world|>"
    replies = config.load(kept).respond(list(asked.values()), None, jax.random.key(0))
    assert len(replies) == 12 and all(len(reply.trace["n_best"]) == 2 for reply in replies)
