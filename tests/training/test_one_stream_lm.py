"""Text and units in one stream, on tones that say which word they are: pairs, a chain of modality by LoRA, turns."""

from functools import cached_property
from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn, spoken
from slm_jax.core.part_source import PartSource
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.one_stream import Document, WordTurns
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.layouts.interleaved import WordSpans
from slm_jax.nn.lora import LoRAConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.one_stream_speech_lm import Form, OneStreamDecoding, OneStreamSpeechLM
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.heard_turns import SpeechStreamConfig
from slm_jax.training.pre.one_stream_lm import OneStreamLMConfig, require_kept_ids
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stage_model import stage_model
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from tests.serving.drawn_one_stream import drawn_vocoder

RATE = 16_000
WORDS = {"a": 300, "b": 2400}
MARKS = ("<sosp>", "<eosp>")
CHAIN = "{asked}>{answered}<sosp>{answered_speech}<eosp>"
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
LM = TextLMConfig(
    name="lm",
    model=llama("7b", vocabulary=259, layers=1, width=32, heads=2, kv_heads=2, hidden=48),
    row_length=16,
    train=TrainConfig(steps=20),
    **SHARED,
)
PAIRS = OneStreamLMConfig(
    name="pairs",
    streams=(SpeechStreamConfig(stage="clusters"),),
    marks=MARKS,
    lm=PartSource(path="params", source="stage:lm", frozen=False),
    mixture=MixtureConfig(
        parts=(
            PartConfig(name="heard", weight=1.0, example=Document(prompt=("<sosp>{speech}<eosp>",), answer="{text}")),
            PartConfig(name="spoken", weight=1.0, example=Document(prompt=("{text}",), answer="<sosp>{speech}<eosp>")),
            PartConfig(name="turns", weight=0.5, example=WordTurns(layout=WordSpans(longest_span=1), marks=MARKS)),
        )
    ),
    row_length=64,
    train=TrainConfig(steps=160, evaluate_every=160),
    **SHARED,
)
QUESTIONS = Document(kinds=("turns",), whole=True, prompt=("<sosp>{asked_speech}<eosp>?",), answer=CHAIN)
CHAINS = PAIRS.replace(
    name="chains",
    lm=PartSource(path="frozen", source="stage:pairs"),
    lora=LoRAConfig(targets=".*/(attention|mlp)/.*", rank=8),
    mixture=MixtureConfig(parts=(PartConfig(name="chain", weight=1.0, example=QUESTIONS),)),
    train=TrainConfig(steps=150, evaluate_every=150),
)
RUN = RunConfig(name="one", corpus=WorldConfig(hours=0.01), stages=(CLUSTERS, LM, PAIRS, CHAINS))


def tone(word: str, count: int, seed: int) -> np.ndarray:
    """A word as int16: its tone and a little noise."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * WORDS[word] * np.arange(count) / RATE) + 0.05 * rng.standard_normal(count)
    return (8000 * wave).astype(np.int16)


def item(index: int) -> dict[str, Any]:
    """A tone that says which word it is."""
    word, count = list(WORDS)[index % 2], 6000 - 300 * (index % 5)
    heard = (Turn("user", word, start_s=0.0, end_s=count / RATE),)
    times = {"words": [word], "word_start_s": np.array([0.0]), "word_end_s": np.array([count / RATE])}
    base = {"id": str(index), "kind": "sentence", "text": word, "speaker": "x", "messages": heard, **times}
    return base | {"samples": tone(word, count, index), "word_turn": np.array([0])}


def turned(index: int) -> dict[str, Any]:
    """A word of the user and the other one of the assistant; number 3 is said too shortly to be heard."""
    first, second = list(WORDS)[index % 2], list(WORDS)[1 - index % 2]
    lengths = (4000, 200 if index == 3 else 4800)
    samples = np.concatenate([tone(w, n, 50 + index) for w, n in zip((first, second), lengths, strict=True)])
    ends = (np.cumsum(lengths) / RATE).tolist()
    turns = (
        Turn("user", first, start_s=0.0, end_s=ends[0]),
        Turn("assistant", second, start_s=ends[0], end_s=ends[1], answer=second),
    )
    return {"id": f"t{index}", "kind": "turns", "samples": samples, "text": first, "speaker": "x", "messages": turns}


class Context(StageContext):
    """Reads tones instead of a corpus."""

    def source(self, split: str, kinds: Any = None) -> Any:
        if kinds == ("turns",):
            return [turned(i) for i in range(8 if split == "train" else 4)]
        return [item(i) for i in range(14 if split == "train" else 4)]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return (9000,)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A run in which all stages but the last are done."""
    run = RunFolder(tmp_path_factory.mktemp("one") / "run")
    found = Context(run, RUN.corpus, run.path / "data", progress=False, say=lambda line: None)
    for stage in (CLUSTERS, LM, PAIRS):
        assert run_stage(stage, found) > 0
    return found


def last_of(context, name, entry):
    return [line for line in read_metrics(context.run.stage(name).path) if entry in line][-1]


def test_pairs_are_learnt_and_measured_by_kind(context):
    found = last_of(context, "pairs", "evaluate/heard/nats_per_text")
    assert found["evaluate/heard/nats_per_text"] < 0.2  # .35 where the word is guessed and its end is known
    assert "evaluate/heard/nats_per_unit" not in found  # what is told counts nothing here
    assert found["evaluate/spoken/nats_per_unit"] < 2.0


def test_the_table_has_rows_for_all_ids_and_others_go_on_from_it(context):
    config, params = stage_model(context.run.stage("pairs"))
    assert config.vocabulary == 272 == params["tokens"]["embedding"].shape[0]  # 259 + 2 + 8, filled up
    assert PAIRS.planned_model(RUN).vocabulary == 272
    with pytest.raises(UserError, match=r"lora of stage 'chains'.*its base lies in another stage"):
        CHAINS.model_of(context.run.stage("pairs"))


def test_turns_are_tokenized_apart_as_they_are_when_asked(context):
    folder = context.run.stage("chains")
    folder.begin(CHAINS, {})
    plan = CHAINS.plan(folder, context)
    plan.batches.close()
    rows, tokenizer = RecordSource(folder.path / "turns" / "units" / "turns" / "train"), CLUSTERS.tokenizer(context)
    clips = [float_samples(one) for one in np.split(turned(0)["samples"], [4000])]
    np.testing.assert_array_equal(rows[0]["units"], np.concatenate(tokenizer.encode_all(clips)))
    assert rows[0]["units_counts"].tolist() == [len(one) for one in tokenizer.encode_all(clips)]
    assert rows[3]["units_counts"][1] == 0


@pytest.mark.parametrize("stage", [PAIRS, CHAINS], ids=lambda stage: stage.name)
def test_its_outline_is_that_of_a_real_batch(context, stage):
    folder = context.run.stage(stage.name)
    if not folder.path.exists():
        folder.begin(stage, {})
    outline, plan = stage.outline(RUN), stage.plan(folder, context)
    try:
        real = next(plan.batches)
        seconds = plan.speech_s(real)
    finally:
        plan.batches.close()
    told = {name: (shape.shape, shape.dtype) for name, shape in outline.batch.items()}
    assert told == {name: (value.shape, value.dtype) for name, value in real.items()}
    assert 0.2 * 4 < seconds < 4 * 64 / 50 and from_json(stage.to_json()) == stage
    born = jax.eval_shape(outline.initialise, jax.random.key(0))
    assert (not born["params"]) == (stage is CHAINS)


def test_other_ids_are_refused_with_both_shown(context):
    other = CHAINS.replace(name="other", marks=(*MARKS, "<ask>"))
    context.run.stage("other").begin(other, {})
    with pytest.raises(UserError, match=r"(?s)ids of stage 'other'.*<ask> 261.*units 261\.\.268"):
        other.plan(context.run.stage("other"), context)
    few = PAIRS.replace(name="few", streams=(SpeechStreamConfig(stage="clusters", ids=7),))
    with pytest.raises(UserError, match="ids of stream 'units' is 7: stage 'clusters' makes 8"):
        few.outline(RUN)
    with pytest.raises(UserError, match="lm's path and frozen"):
        CHAINS.replace(lora=None)
    folder, tokens = context.run.stage("pairs"), SpecialsConfig().make()
    ids = PAIRS.vocabulary([CLUSTERS.spec(context)], 259)
    require_kept_ids(folder, JointTokens(tokens, ids))
    with pytest.raises(UserError, match=r"(?s)ids of stage 'pairs'.*this:.*units 261\.\.269.*other:.*units 261\.\.268"):
        require_kept_ids(folder, JointTokens(tokens, ids.replace(ranges=(("units", 9),))))
    turned = SpecialsConfig(specials=("<s>", "<pad>", "</s>"), tokenizer=CharacterTokenizerConfig(characters="ab"))
    with pytest.raises(UserError, match="spelling of stage 'pairs'"):
        require_kept_ids(folder, JointTokens(turned.make(), ids))


@pytest.mark.slow(seconds=60)
def test_a_chain_of_modality_answers_what_it_hears_and_keeps_its_base(context):
    base = flatten_by_path(trained(context.run.stage("pairs"))[1]["params"])
    stage = CHAINS.replace(name="learnt")
    run_stage(stage, context)
    folder = context.run.stage("learnt")
    assert set(trained(folder)[1]) == {"params", "lora"} and not flatten_by_path(trained(folder)[1]["params"])
    model, params, stream = stage.finished(folder, context)
    tables = flatten_by_path(params)["tokens/embedding"], base["tokens/embedding"]
    np.testing.assert_array_equal(*tables)  # LoRA leaves the table alone
    form = Form(name="answer", prompt=QUESTIONS.prompt[0].replace("{speech}", "{asked_speech}"), answer=CHAIN)
    system = OneStreamSpeechLM(
        tokenizers=(CLUSTERS.tokenizer(context),),
        stream=stream,
        lm=model,
        lm_params=params,
        forms=(form,),
        decoding=OneStreamDecoding(max_new=40, temperature=0.0),
        **drawn_vocoder(),
    )
    asked = [spoken(float_samples(turned(i)["samples"][:4000]), RATE) for i in range(4)]
    replies = system.respond(asked, None, jax.random.key(0))
    assert [one.messages[0].text for one in replies] == ["b", "a", "b", "a"]
    assert [one.trace["asked"] for one in replies] == ["a", "b", "a", "b"]
    heard = {word: set(np.concatenate([one.trace["units"] for one in replies[i::2]])) for i, word in enumerate("ba")}
    assert all(heard.values()) and heard["a"] != heard["b"]
