"""Stages that hand parts on: an encoder learns beside a language model that is kept, then the other way round."""

from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.assemblies.whisper import WhisperConfig, whisper_decoder
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export, load
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.systems.speech_aware.qwen_audio import LOUDNESS, TOKENS, keyword
from slm_jax.text.templates import QWEN_AUDIO, QWEN_AUDIO_CHAT
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import load_frozen
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage
from tests.serving.drawn import noise
from tests.systems.drawn_qwen_audio import drawn_model

RATE = 1e-2
MODEL = drawn_model()
WHISPER = WhisperConfig(
    encoder=MODEL.encoder.replace(trim=False, mel_frames="begun", final_norm=True),
    decoder=whisper_decoder(32, layers=1, width=16, heads=2),
)


def run_of(folder):
    """The two stages; `folder` holds Whisper and the language model."""
    heard = PartSource(
        path="params/encoder", source=f"{folder}/whisper", take="encoder", frozen=False, expect=MODEL.encoder
    )
    first = SpeechAwareStageConfig(
        name="pretraining",
        parts=(heard, PartSource(path="params/lm", source=f"{folder}/lm", frozen=False, expect=MODEL.lm)),
        kept="lm/(blocks|final_norm)",
        adapter=MODEL.adapter,
        tokens=TOKENS,
        template=QWEN_AUDIO.replace(tags=keyword("energy").tags.spelt),
        tasks=keyword("energy"),
        clip_s=1.0,
        length=64,
        train=TrainConfig(steps=2),
        batches=PipelineConfig(batch=4),
        optimizer=OptimizerConfig(learning_rate=RATE),
    )
    trained_lm = PartSource(path="params/lm", source="stage:pretraining", take="lm", frozen=False, expect=MODEL.lm)
    second = first.replace(
        name="chat",
        parts=(heard.replace(path="frozen/encoder", source="stage:pretraining", frozen=True), trained_lm),
        kept=None,
        goes_on="pretraining",
        template=QWEN_AUDIO_CHAT,
        tasks=LOUDNESS,
        length=160,
    )
    return speech_aware_run("parts", WorldConfig(hours=0.01), (first, second))


class Clips(StageContext):
    """Reads noise instead of a corpus."""

    def source(self, split: str, kinds: tuple[str, ...] | None = None) -> Any:
        if split == "dev":
            return []
        label = ("soft", "loud")
        clips = [(0.5 + 0.5 * (i % 2)) * noise(0.5, i) for i in range(4)]
        return [
            {"id": str(i), "samples": clip, "text": "a b", "energy": label[i % 2], "messages": ()}
            for i, clip in enumerate(clips)
        ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its config."""
    folder = tmp_path_factory.mktemp("parts")
    for number, (name, config) in enumerate({"whisper": WHISPER, "lm": MODEL.lm}.items()):
        rng = np.random.default_rng(number)
        drawn = jax.tree.map(lambda leaf, rng=rng: rng.normal(0, 0.3, leaf.shape), family_for(config).abstract(config))
        export(config, drawn, folder / name)
    return run_of(folder)


@pytest.fixture(scope="module")
def context(run, tmp_path_factory):
    """The run, done."""
    place = RunFolder(tmp_path_factory.mktemp("run") / "run")
    found = Clips(place, run.corpus, place.path / "data", progress=False)
    for stage in run.stages:
        run_stage(stage, found)
    return found


def given(run, number):
    """The weights that a part begins with, by path."""
    return flatten_by_path(load(run.stage("pretraining").parts[number].source)[1])


def changed(before, after):
    assert before.keys() == after.keys()
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_the_encoder_learns_and_the_layers_of_the_language_model_are_kept(run, context):
    params = trained(context.finished("pretraining"))[1]["params"]
    assert changed(given(run, 1), flatten_by_path(params["lm"])) == {"tokens/embedding", "head_kernel"}
    own = (item for item in given(run, 0).items() if item[0].startswith("encoder/"))
    whisper = {path.removeprefix("encoder/"): leaf for path, leaf in own}
    heard = {path: leaf for path, leaf in whisper.items() if not path.startswith("final_norm")}
    moved = changed(heard, flatten_by_path(params["encoder"]))
    assert len(heard) < len(whisper) and set(heard) - moved == {"positions"}, "the sinusoids alone are constant"


def test_then_the_language_model_learns_from_the_frozen_encoder(context):
    first, second = (trained(context.finished(name))[1]["params"] for name in ("pretraining", "chat"))
    assert set(first) == {"encoder", "adapter", "lm"} and set(second) == {"adapter", "lm"}
    frozen = load_frozen(context.run, "chat")["frozen"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, frozen, first["encoder"])
    before, after = flatten_by_path(first["lm"]), flatten_by_path(second["lm"])
    assert any("blocks" in path for path in changed(before, after))
    most = 1.1 * 2 * RATE
    near = [np.abs(before[path] - after[path]).max() <= most for path in before]
    assert all(near), "it begins with what was trained before"
    ends = "parts_1/vectors/embedding"
    moved = np.abs(flatten_by_path(first["adapter"])[ends] - flatten_by_path(second["adapter"])[ends]).max()
    assert 0 < moved <= most


def test_the_run_answers(run, context):
    asked = LOUDNESS.conversation(context.source("test")[0], 16_000, np.random.default_rng(0))[:1]
    (reply,) = run.load(context).respond([asked], None, jax.random.key(0))
    assert len(reply.trace["ids"]) > 0
