"""Text beside codes that spell it, a frame before it: the model learns to write what it hears."""

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec
from slm_jax.data.corpus import WorldConfig, prepare_corpus
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import write_records
from slm_jax.evaluation.codes import nats_of_text_and_codes
from slm_jax.layouts.beside import PaddingAfter, TimeAligned
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.parallel import Parallel, TemporalDepth
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.text_code_lm import TextCodeLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from slm_jax.training.token_stage import write_spec
from tests.codecs import CODECS

LETTERS = CharacterTokenizerConfig(characters=" 'abcdefghijklmnopqrstuvwxyz", unknown="'")
SIZE = len(LETTERS.characters)
SPEC = TokenSpec(
    codebooks=(Codebook(name="heard", size=SIZE), Codebook(name="parity", size=2)),
    hop=800,
    rate_hz=16_000,
    columns=("codes_0", "codes_1"),
)
BODY = llama("7b", vocabulary=1, layers=2, width=48, heads=2, kv_heads=2, hidden=64, tied_head=True)
STAGE = TextCodeLMConfig(
    name="lm",
    tokens="codes",
    model=MultiStreamConfig(streams=(SIZE + 2, SIZE, 2), body=BODY, blanks=True),
    scheme=Delay(delays=(0, 1)),
    layout=TimeAligned(),
    text_tokens=LETTERS,
    frames=40,
    train=TrainConfig(steps=120, evaluate_every=120),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=10),
)
CORPUS = WorldConfig(hours=0.05, test_share=0.1, dev_share=0.1)


def spelt(item):
    """A code for each frame of 50 ms: the letters of a word one after the other, as far as its frames reach."""
    letters = LETTERS.make()
    codes = np.zeros(int(item["seconds"] * 20) + 1, np.int32)
    for word, start, end in zip(item["words"], item["word_start_s"], item["word_end_s"], strict=True):
        first, last = int(start * 20), int(np.ceil(end * 20))
        codes[first:last] = np.resize([*letters.encode(word.lower()), *[0] * 40], last - first)
    return {"codes_0": codes, "codes_1": codes % 2}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp("spelt")
    prepare_corpus(CORPUS, path / "data")
    run, codes = RunFolder(path / "run"), CodecTokensConfig(name="codes", source="stage:codec")
    context, folder = StageContext(run, CORPUS, path / "data", progress=False), run.stage("codes")
    folder.begin(codes, {})
    for split in ("train", "dev", "test"):
        source = context.source(split)
        rows = [{"id": source[i]["id"], **spelt(source[i])} for i in range(len(source))]
        write_records(codes.records(folder, split), rows)
    folder.finish(["units", write_spec(folder, SPEC)])
    return context


@pytest.mark.slow(seconds=60)
def test_what_is_heard_is_written_behind_it(context):
    run_stage(STAGE, context)
    folder = context.run.stage("lm")
    found = [line for line in read_metrics(folder.path) if "evaluate/nats_per_text" in line][-1]
    assert found["evaluate/nats_per_mark"] < np.log(2) + 0.5 and found["evaluate/nats_per_code"] < 2.2
    rows, params = STAGE.rows(SPEC), trained(folder)[1]["params"]
    items = [context.source("dev")[i] for i in range(len(context.source("dev")))]
    said, codes = ([make(item) for item in items] for make in (rows.said, lambda item: rows.codes.codes(spelt(item))))

    def nats(heard):
        made = [rows.row(*rows.stretch(*pair, 0), np.random.default_rng(0)) for pair in zip(said, heard, strict=True)]
        return nats_of_text_and_codes(STAGE.model.make(), params, made, rows.steps, SIZE)["nats_per_text"]

    other = [np.resize(codes[i - 1], codes[i].shape) for i in range(len(codes))]
    own = nats(codes)
    assert own == pytest.approx(found["evaluate/nats_per_text"], abs=1e-5)
    assert own < nats(other) - 0.5


def test_a_stage_is_refused_whose_streams_or_order_do_not_fit(context):
    rule = rf"other.model.streams is \(28, 28, 2\): {SIZE + 2} ids of text and marks"
    with pytest.raises(UserError, match=rule):
        run_stage(STAGE.replace(name="other", model=STAGE.model.replace(streams=(SIZE, SIZE, 2))), context)
    with pytest.raises(UserError, match="scheme is 'TemporalDepth'"):
        STAGE.replace(scheme=TemporalDepth())
    assert from_json(STAGE.to_json()) == STAGE
    assert STAGE.replace(layout=PaddingAfter(), scheme=Parallel()).content_hash() != STAGE.content_hash()


def test_its_outline_is_what_it_trains():
    books = ResidualVQConfig(width=12, books=2, codebook=CodebookConfig(size=8, width=12))
    codec = CODECS["over spectra"].replace(quantizer=books)
    tokens = CodecTokensConfig(name="codes", source="nowhere", expect=codec)
    stage = STAGE.replace(model=STAGE.model.replace(streams=(SIZE + 2, 8, 8)))
    run = RunConfig(name="run", corpus=CORPUS, stages=(tokens, stage))
    assert from_json(run.to_json()) == run
    outlined, rows = stage.outline(run).batch, stage.rows(tokens.planned_spec(run))
    assert outlined["ids"].shape == outlined["target_weight"].shape == (8, rows.steps, 3)
    assert outlined["mask"].shape == (8, rows.steps)
