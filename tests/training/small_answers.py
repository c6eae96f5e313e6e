"""A stage that learns to answer, on tones that say which word they are, with parts from two folders."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.nn.lora import LoRAConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.run_folder import RunFolder, StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

CORPUS = WorldConfig(hours=0.01)
WORDS = {"low": 300, "hi": 2400}
SAMPLES = 6_000
ENCODER = ENCODERS["log_mel"].replace(layers=1, dropout=0.1, attention_dropout=0.1)
LM = DecoderConfig(vocabulary=264, layers=1, width=16, heads=2, hidden=32, positions="rope", max_positions=40)
WRITE = AskedTaskConfig(asks=("Word?", "What?"))
TASKS = MixtureConfig(
    parts=(
        PartConfig(name="heard", weight=2.0, example=WRITE),
        PartConfig(name="written", weight=1.0, example=WrittenTaskConfig(task=WRITE)),
    )
)


class Tones:
    """A tone says which word it is; one of the last two has no text, the other is too long."""

    def __init__(self, count: int = 8) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, (word, hz) = np.random.default_rng(index), list(WORDS.items())[index % 2]
        length = SAMPLES - 300 * (index % 5) + 9000 * (index == 7)
        tone = np.sin(2 * np.pi * hz * np.arange(length) / 16_000 + rng.uniform(0, 6))
        return {"id": str(index), "samples": (8000 * tone).astype(np.int16), "text": "" if index == 6 else word}


class Context(StageContext):
    """Reads tones instead of a corpus; there is nothing to measure on."""

    dev = 0

    def source(self, split: str, kinds: Any = None) -> Any:
        return Tones(8 if split == "train" else self.dev)


class MeasuringContext(Context):
    """With four items to measure on."""

    dev = 4


def write_parts(folder: Path) -> None:
    """Folders `encoder` and `lm` of drawn weights."""
    samples, ids = jnp.zeros((1, 4_000)), jnp.zeros((1, 2), jnp.int32)
    save_model(folder / "encoder", ENCODER, random_params(ENCODER.make(), jax.random.key(2), samples))
    save_model(folder / "lm", LM, random_params(LM.make(), jax.random.key(3), ids))


def stage_of(folder: Path, name: str = "answers", **changes: Any) -> SpeechAwareStageConfig:
    """Frozen encoder and LM, LoRA, three steps."""
    parts = (
        PartSource(path="frozen/encoder", source=str(folder / "encoder")),
        PartSource(path="frozen/lm", source=str(folder / "lm")),
    )
    settings: dict[str, Any] = {
        "parts": parts,
        "adapter": LinearAdapterConfig(width=16, stack=4),
        "tokens": SpecialsConfig(),
        "template": PLAIN,
        "tasks": TASKS,
        "lora": LoRAConfig(targets="lm/.*/attention/(query|value)", rank=2),
        "clip_s": SAMPLES / 16_000,
        "length": 32,
        "train": TrainConfig(steps=4, log_every=1, checkpoint_every_steps=2, checkpoint_every_minutes=None),
        "batches": PipelineConfig(batch=2),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "cache": False,
    }
    return SpeechAwareStageConfig(name=name, **{**settings, **changes})


def run_of(*stages: SpeechAwareStageConfig) -> RunConfig:
    """A run of these stages."""
    return RunConfig(name="small", corpus=CORPUS, stages=stages)


def context_of(folder: Path, said: list[str] | None = None, kind: type[Context] = Context) -> Context:
    """That of the run folder `folder`; what is told goes to `said`."""
    say = ([] if said is None else said).append
    return kind(RunFolder(folder), CORPUS, folder / "data", progress=False, say=say)


def planned(stage: SpeechAwareStageConfig, context: Context) -> Any:
    """The plan of the stage, begun in its folder."""
    place = context.run.stage(stage.name)
    place.begin(stage, {})
    return stage.plan(place, context)


def carry_out(stage: SpeechAwareStageConfig, context: Context) -> StageFolder:
    """Run the stage, or go on with it, as `run_stages` does."""
    place = context.run.stage(stage.name)
    if not place.path.exists():
        place.begin(stage, {})
    place.finish(stage.run(place, context))
    return place


def weights(folder: Path, name: str = "answers") -> dict[str, np.ndarray]:
    """What a finished stage of the run trained, by path."""
    variables = trained(RunFolder(folder).stage(name))[1]
    return {path: np.asarray(leaf) for path, leaf in flatten_by_path(variables).items()}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    """The same leaves with the same values."""
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_allclose(found[path], leaf, atol=tolerance, rtol=0, err_msg=path)


def with_part(stage: SpeechAwareStageConfig, name: str, **changes: Any) -> SpeechAwareStageConfig:
    """The stage with other fields of one of its parts."""
    parts = [part.replace(**changes) if part.path.endswith(f"/{name}") else part for part in stage.parts]
    return stage.replace(parts=tuple(parts))
