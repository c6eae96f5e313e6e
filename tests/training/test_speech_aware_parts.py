"""Stages that hand parts on: an encoder learns beside a language model that is kept, then the other way round."""

from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.systems.speech_aware.qwen_audio import LOUDNESS, TOKENS, keyword
from slm_jax.text.templates import QWEN_AUDIO, QWEN_AUDIO_CHAT
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.parts import load_frozen, open_part
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage
from tests.serving.drawn import noise
from tests.systems.drawn_qwen_audio import drawn_model

MODEL = drawn_model()
SHARED: dict[str, Any] = {
    "train": TrainConfig(steps=2),
    "batches": PipelineConfig(batch=4),
    "optimizer": OptimizerConfig(learning_rate=1e-2),
}
LETTERS = CTCStageConfig(
    name="letters", encoder=MODEL.encoder.replace(final_norm=True), longest_s=1.0, longest_text=8, **SHARED
)
LM = TextLMConfig(
    name="lm", model=MODEL.lm, tokens=TOKENS, row_length=32, begin="<|endoftext|>", end="<|endoftext|>", **SHARED
)
FIRST = SpeechAwareStageConfig(
    name="pretraining",
    parts=(
        PartSource(path="params/encoder", source="stage:letters", frozen=False, expect=MODEL.encoder),
        PartSource(path="params/lm", source="stage:lm", frozen=False, expect=MODEL.lm),
    ),
    kept="lm/(blocks|final_norm)",
    adapter=MODEL.adapter,
    tokens=TOKENS,
    template=QWEN_AUDIO,
    tasks=keyword("energy"),
    clip_s=1.0,
    length=64,
    **SHARED,
)
SECOND = FIRST.replace(
    name="chat",
    parts=(
        PartSource(path="frozen/encoder", source="stage:pretraining", take="encoder", expect=MODEL.encoder),
        PartSource(path="params/lm", source="stage:pretraining", take="lm", frozen=False, expect=MODEL.lm),
    ),
    kept=None,
    goes_on="pretraining",
    template=QWEN_AUDIO_CHAT,
    tasks=LOUDNESS,
    length=160,
)
RUN = speech_aware_run("parts", WorldConfig(hours=0.01), (LETTERS, LM, FIRST, SECOND))


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
def context(tmp_path_factory):
    """The run, done."""
    run = RunFolder(tmp_path_factory.mktemp("parts") / "run")
    found = Clips(run, RUN.corpus, run.path / "data", progress=False)
    for stage in RUN.stages:
        run_stage(stage, found)
    return found


def leaves(context, stage, part):
    found = trained(context.finished(stage))[1]["params"]
    return flatten_by_path(found[part] if part else found)


def changed(before, after):
    assert before.keys() == after.keys()
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_the_encoder_learns_and_the_layers_of_the_language_model_are_kept(context):
    before, after = leaves(context, "lm", ""), leaves(context, "pretraining", "lm")
    assert changed(before, after) == {"tokens/embedding", "head_kernel"}
    heard = {path: leaf for path, leaf in leaves(context, "letters", "encoder").items() if "final_norm" not in path}
    still = set(heard) - changed(heard, leaves(context, "pretraining", "encoder"))
    assert still <= {"positions"}, "only the sinusoids are constant"


def test_then_the_language_model_learns_from_the_frozen_encoder(context):
    first, second = (trained(context.finished(name))[1]["params"] for name in ("pretraining", "chat"))
    assert set(first) == {"encoder", "adapter", "lm"} and set(second) == {"adapter", "lm"}
    frozen = load_frozen(context.run, "chat")["frozen"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, frozen, first["encoder"])
    before, after = flatten_by_path(first["lm"]), flatten_by_path(second["lm"])
    assert any("blocks" in path for path in changed(before, after))
    steps = 2 * SHARED["optimizer"].learning_rate
    near = [np.abs(before[path] - after[path]).max() <= 1.1 * steps for path in before]
    assert all(near), "it begins with what was trained before"
    ends = "parts_1/vectors/embedding"
    moved = np.abs(flatten_by_path(first["adapter"])[ends] - flatten_by_path(second["adapter"])[ends]).max()
    assert 0 < moved <= 1.1 * steps


def test_the_run_answers(context):
    system = RUN.load(context)
    (reply,) = system.respond(
        [LOUDNESS.conversation(context.source("test")[0], 16_000, np.random.default_rng(0))[:1]],
        None,
        jax.random.key(0),
    )
    assert len(reply.trace["ids"]) > 0


def test_a_part_that_a_stage_does_not_have_is_named(context):
    source = PartSource(path="frozen/lm", source="stage:chat", take="encoder", expect=MODEL.encoder)
    with pytest.raises(UserError, match=r"take is 'encoder': 'stage:chat' holds adapter, lm only"):
        open_part(source, context.run)
