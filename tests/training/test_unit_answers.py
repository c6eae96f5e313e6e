"""A speech-aware LM that hears units: byte pairs as a stage, tables of clips, what is learnt, the trained system."""

import json
from functools import cached_property
from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.token_compression.bpe import UnitBPE
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.clip_units import ClipUnitsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.pre.unit_bpe import UnitBPEConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, run_stage

RATE, SAMPLES = 16_000, 8_000
WORDS = {"a": 300, "b": 2400}
SHARED: dict[str, Any] = {
    "batches": PipelineConfig(batch=4),
    "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
}
CLUSTERS = FrameUnitsConfig(
    name="clusters",
    features=MFCCFeaturesConfig(coefficients=13),
    kmeans=KMeansConfig(clusters=8, iterations=5),
    postprocess=PostprocessConfig(normalise="standardise"),
)
PAIRS = UnitBPEConfig(name="pairs", units="clusters", vocabulary=24)
LM = TextLMConfig(
    name="lm",
    model=llama("7b", vocabulary=264, layers=1, width=32, heads=2, kv_heads=2, hidden=48),
    row_length=16,
    train=TrainConfig(steps=60),
    **SHARED,
)
TASKS = MixtureConfig(
    parts=(
        PartConfig(name="said", weight=0.5, example=AskedTaskConfig(asks=("",))),
        PartConfig(name="turns", weight=0.5, example=AnsweredTaskConfig(kinds=("turns",))),
    )
)
ANSWERS = SpeechAwareStageConfig(
    name="answers",
    parts=(PartSource(path="params/lm", source="stage:lm", frozen=False),),
    units=ClipUnitsConfig(stage="pairs", most=24),
    encoder=UnitEmbeddingConfig(units=24, width=32),
    adapter=ChainConfig(parts=(ConvAdapterConfig(layers=((32, 3, 2, 1),)), LinearAdapterConfig(width=32))),
    tokens=SpecialsConfig(),
    template=PLAIN,
    tasks=TASKS,
    clip_s=0.75,
    clips=2,
    length=40,
    train=TrainConfig(steps=40, log_every=20, evaluate_every=40),
    **SHARED,
)
RUN = speech_aware_run("units", WorldConfig(hours=0.01), (CLUSTERS, PAIRS, LM, ANSWERS))


def tone(word: str, count: int, seed: int) -> np.ndarray:
    """A word as int16: its tone and a little noise."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * WORDS[word] * np.arange(count) / RATE) + 0.05 * rng.standard_normal(count)
    return (8000 * wave).astype(np.int16)


def item(index: int) -> dict[str, Any]:
    """A tone that says which word it is; number 7 lasts longer than the stage hears."""
    word = list(WORDS)[index % 2]
    samples = tone(word, SAMPLES - 300 * (index % 5) + 9000 * (index == 7), index)
    return {"id": str(index), "kind": "sentence", "samples": samples, "text": word, "speaker": "x"}


def turned(index: int) -> dict[str, Any]:
    """Two turns of the user, of which the second is repeated by the assistant; number 3 is too short for a frame."""
    first, second = list(WORDS)[index % 2], list(WORDS)[1 - index % 2]
    lengths = (200 if index == 3 else 4000, 4800)
    samples = np.concatenate([tone(w, n, 50 + index) for w, n in zip((first, second), lengths, strict=True)])
    ends = (np.cumsum(lengths) / RATE).tolist()
    said = (("user", "", 0.0, ends[0]), ("user", "", ends[0], ends[1]), ("assistant", second, None, None))
    turns = tuple(Turn(role, text, start_s=start, end_s=end) for role, text, start, end in said)
    return {"id": f"t{index}", "kind": "turns", "samples": samples, "text": "", "speaker": "x", "messages": turns}


class Context(StageContext):
    """Reads tones instead of a corpus."""

    def source(self, split: str, kinds: Any = None) -> Any:
        if kinds == ("turns",):
            return [turned(i) for i in range(8 if split == "train" else 4)]
        return [item(i) for i in range(14 if split == "train" else 4)]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return (2 * SAMPLES + 1000,)


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def context(tmp_path_factory, said):
    """A run in which all stages are done."""
    run = RunFolder(tmp_path_factory.mktemp("units") / "run")
    found = Context(run, RUN.corpus, run.path / "data", progress=False, say=said.append)
    for stage in RUN.stages:
        assert run_stage(stage, found) > 0
    return found


def test_byte_pairs_are_learnt_on_the_training_split_and_written_for_all(context):
    folder, source = context.run.stage("pairs"), context.run.stage("clusters")
    bpe = UnitBPE.load(folder.path / "merges.json")
    rows = RecordSource(CLUSTERS.records(source, "train"))
    again = UnitBPE.train([rows[i]["runs"] for i in range(len(rows))], units=8, vocabulary=24)
    assert bpe.content_hash() == again.content_hash() and 8 < len(bpe) <= 24
    for split in ("train", "dev", "test"):
        units, tokens = (RecordSource(s.records(f, split)) for s, f in ((CLUSTERS, source), (PAIRS, folder)))
        for i in range(len(units)):
            assert units[i]["id"] == tokens[i]["id"]
            np.testing.assert_array_equal(bpe.decode(tokens[i]["runs"]), units[i]["runs"])
            assert tokens[i]["durations"].sum() == len(units[i]["units"]) == len(tokens[i]["units"])
    counts = json.loads((folder.path / "compression.json").read_text())
    assert (
        counts["frames"]
        > counts["runs"]
        > counts["tokens"]
        == RecordSource(PAIRS.records(folder, "train")).lengths("runs").sum()
    )
    assert PAIRS.spec(context).units == len(bpe) <= PAIRS.planned_spec(RUN).units == 24


def test_tables_hold_the_units_of_each_clip_and_what_does_not_fit_is_left_out(context, said):
    sequences, folder = ANSWERS.sequences(context), context.run.stage("answers").path / "clip_units" / "train"
    table = RecordSource(folder / "said")
    for i in (0, 7):
        alone = sequences.of_clips([float_samples(item(i)["samples"])])[0]
        np.testing.assert_array_equal(table[i]["clip_ids"], alone)
    turns = RecordSource(folder / "turns")
    clips = [float_samples(x) for x in np.split(turned(0)["samples"], [4000])]
    np.testing.assert_array_equal(turns[0]["clip_ids"], np.concatenate(sequences.of_clips(clips)))
    assert turns[0]["counts"].tolist() == [len(one) for one in sequences.of_clips(clips)]
    assert turns[0]["clip_samples"].tolist() == [4000, 4800]
    assert any("turns: of 8 train items are left out: 1 (a clip is so short" in line for line in said), said


def test_it_learns_to_hear(context):
    lines = [line for line in read_metrics(context.run.stage("answers").path) if "evaluate/nats_per_word" in line]
    own, other = (lines[-1][f"evaluate/nats_per_word{name}"] for name in ("", "_other_speech"))
    assert own < 0.2 < 1.0 < other, lines
    learnt = trained(context.run.stage("answers"))[1]["params"]
    assert set(learnt) == {"encoder", "adapter", "lm"}


def test_the_trained_system_reads_clips_as_training_did(context):
    system = RUN.load(context)
    said = [TASKS.parts[0].example.conversation(item(i), RATE, np.random.default_rng(0)) for i in (0, 1, 4)]
    replies = system.respond([one[:-1] for one in said], None, jax.random.key(0))
    assert [reply.messages[0].text for reply in replies] == [one[-1].text for one in said] == ["a", "b", "a"]
    model, layout, _ = ANSWERS.finished(context.run.stage("answers"))
    batch = system._batch([one[:-1] for one in said], 0, answered=False)
    assert batch["samples"].dtype == np.int32 and batch["samples"].shape[2] % 32 == 0
    counts = [len(ids) for ids in system.units.of_clips([one[0].speech[0].samples for one in said])]
    assert batch["sample_mask"].sum(-1)[:, 0].tolist() == counts
    assert (batch["speech_at"] >= 0).sum(1).tolist() == [-(-count // 2) for count in counts]
    assert layout.frames_out(7) == 4 and model.config.reads == "int32"


def test_its_outline_is_that_of_a_real_batch(context):
    outline, plan = ANSWERS.outline(RUN), ANSWERS.plan(context.run.stage("answers"), context)
    try:
        real = next(plan.batches)
        seconds = plan.speech_s(real)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    assert 0.2 * 4 < seconds < 0.75 * 8


def test_what_does_not_go_together_is_refused(context):
    with pytest.raises(UserError, match=r"encoder.units is 8: stage 'pairs' makes"):
        ANSWERS.replace(encoder=UnitEmbeddingConfig(units=8, width=32)).outline(RUN)
    with pytest.raises(UserError, match="go with an encoder that reads them; here it reads int32"):
        ANSWERS.replace(units=None).outline(RUN)
    two = ANSWERS.replace(parts=(*ANSWERS.parts, PartSource(path="frozen/encoder", source="stage:lm")))
    with pytest.raises(UserError, match="encoder is 'UnitEmbeddingConfig': stands in the place of a part"):
        two.outline(RUN)
    assert ANSWERS.needs == ("lm", "pairs")
