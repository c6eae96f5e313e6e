"""A model that hears one channel and takes the other's side: its rows, and what it learns."""

import json

import numpy as np
import pytest
from flax.core import meta

from slm_jax.audio.files import write_wav
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.types import ABSENT, EMPTY
from slm_jax.data.channels import Channel, ChannelsApart
from slm_jax.data.corpus import ManifestConfig, prepare_corpus
from slm_jax.data.examples.dialogue_rows import SideConfig
from slm_jax.data.lines import LineConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.data.records import RecordSource
from slm_jax.data.word_times import words_of
from slm_jax.schemes.delay import Delay
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import GroupConfig, OptimizerConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.dialogue_lm import DialogueLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stage
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, CODEC, CODES
from tests.serving.drawn_codes import BODY, DEEP, FLAT, drawn_code_lm

LETTERS = CharacterTokenizerConfig(characters=" 'abcdefghijklmnopqrstuvwxyz", unknown="'")
SIZE = len(LETTERS.characters)
STREAMS = (SIZE + 2, *[CODES] * (2 * BOOKS))
MODEL = DEEP.replace(temporal=FLAT.replace(streams=STREAMS, body=BODY, heads=1), written=1 + BOOKS)
TASKS = MixtureConfig(
    parts=(
        PartConfig(name="text", weight=0.25, example=SideConfig(parts="text")),
        PartConfig(name="one", weight=0.25, example=SideConfig(own=0, parts="own", masked=0.3)),
        PartConfig(name="two", weight=0.5, example=SideConfig(kinds=("recording",))),
    )
)
STAGE = DialogueLMConfig(
    name="lm",
    tokens="codes",
    model=MODEL,
    scheme=Delay(delays=(0, 1, 1, 0, 1, 1)),
    tasks=TASKS,
    text_tokens=LETTERS,
    frames=120,
    weights=(1.0, 10.0, 1.0, 1.0, 0.0, 0.0, 0.0),
    apart=1,
    train=TrainConfig(steps=2, evaluate_every=2, log_every=1),
    batches=PipelineConfig(batch=4),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, groups=(GroupConfig(name="depth", match="params/depth/", learning_rate=2e-3),)
    ),
)
KINDS, LINE, ITEMS, SECONDS = ("recording",), LineConfig(gain_share=1.0), 12, 2.4
WORDS = ["red", "green", "blue", "grey", "pink", "gold", "white", "black", "brown"]


def calls(folder):
    """Two who hum at each other, whose words have times; of the last one only the first side is there."""
    rows = []
    for number in range(ITEMS):
        rng = np.random.default_rng(number)
        sides = np.stack([noise(SECONDS, 2 * number), noise(SECONDS, 2 * number + 1)], axis=1)
        sides *= [1.0, float(number < ITEMS - 1)]
        write_wav(folder / f"{number}.wav", sides, 16_000)
        spoken = [
            {"word": str(rng.choice(WORDS)), "start": 0.3 * k + 0.1, "end": 0.3 * k + 0.3, "channel": k % 2}
            for k in range(7)
        ]
        text = " ".join(one["word"] for one in spoken)
        messages = [{"role": "user", "text": text, "start_s": 0.0, "end_s": SECONDS, "channel": 0}]
        if number < ITEMS - 1:
            messages.append({"role": "assistant", "text": text, "start_s": 0.3, "end_s": SECONDS, "channel": 1})
        row = {"audio_filepath": f"{number}.wav", "id": str(number), "text": text}
        rows.append({**row, "words": spoken, "messages": messages})
    (folder / "calls.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return ManifestConfig(path=str(folder / "calls.jsonl"), channels=2, processes=1, dev_share=0.2)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp("two_sides")
    corpus = calls(path)
    prepare_corpus(corpus, path / "data", progress=False)
    codec = drawn_code_lm(Delay(delays=(0, 1, 1))).codec
    save_model(path / "codec", codec.config, meta.unbox(codec.variables["params"]))
    context = StageContext(RunFolder(path / "run"), corpus, path / "data", progress=False)
    run_stage(CodecTokensConfig(name="codes", source=str(path / "codec"), kinds=KINDS, line=LINE), context)
    return context


def spec_of(context):
    return CodecTokensConfig.of(context.run.stage("codes")).spec(context)


def test_each_channel_is_encoded_apart_and_the_user_is_heard_through_a_line(context):
    stage, spec = CodecTokensConfig.of(context.run.stage("codes")), spec_of(context)
    assert spec.columns == tuple(f"codes_{k}{side}" for side in ("", "_of_1") for k in range(BOOKS))
    source, rows = context.source("train"), RecordSource(stage.records(context.finished("codes"), "train"))
    codec, found = stage.tokenizer(context), {"said": 0, "heard": 0}
    for i in range(4):
        sound = float_samples(source[i]["samples"])
        for channel, name in enumerate(("heard", "said")):
            columns = spec.columns[channel * BOOKS : (channel + 1) * BOOKS]
            codes = np.stack([rows[i][column] for column in columns], 1)
            found[name] += np.array_equal(codes, codec.encode(sound[:, channel]))
    assert found["said"] == 4 and found["heard"] < 4


def test_a_line_changes_what_is_said_by_what_it_states():
    rng, rate = np.random.default_rng(0), 16_000
    said, own = (0.1 * np.sin(np.arange(rate) * step) for step in (0.05, 0.11))
    nothing = LineConfig(gain_share=0.0, noise_share=0.0, echo_share=0.0)
    np.testing.assert_allclose(nothing.make(rate)(said, own, rng), said, atol=1e-7)
    echo = nothing.replace(echo_share=1.0, echo=(0.2, 0.2), echo_s=(0.1, 0.1)).make(rate)(said, own, rng)
    np.testing.assert_allclose(echo[1600:] - said[1600:], 0.2 * own[:-1600], atol=1e-6)
    gain = nothing.replace(gain_share=1.0, gain_db=(-6.0, -6.0)).make(rate)(said, own, rng)
    np.testing.assert_allclose(gain, said * 10 ** (-0.3), atol=1e-6)
    noise = nothing.replace(noise_share=1.0, noise_db=(0.0, 0.0)).make(rate)(said, own, rng) - said
    assert np.std(noise) == pytest.approx(np.std(said), rel=0.05)
    loud = nothing.replace(gain_share=1.0, gain_db=(60.0, 60.0)).make(rate)(said, own, rng)
    assert np.abs(loud).max() == pytest.approx(1.0)
    with pytest.raises(UserError, match="echo_share is 2"):
        LineConfig(echo_share=2.0)


def test_channels_are_read_one_at_a_time(context):
    source = context.source("train")
    apart, first = ChannelsApart(source, 2), Channel(source, 0)
    assert len(apart) == 2 * len(source) and len(first) == len(source)
    np.testing.assert_array_equal(apart[1]["samples"], source[1]["samples"][:, 0])
    voices = [len(source[i]["messages"]) for i in range(len(source))]
    for both, heard in ((voices.index(2), 1), (voices.index(1), 0)):
        np.testing.assert_array_equal(apart[len(source) + both]["samples"], source[both]["samples"][:, heard])
    with pytest.raises(UserError, match="channel is 2"):
        Channel(source, 2)[0]


def example_of(context, place, item):
    rows, rng = STAGE.rows(spec_of(context), STAGE.sides[place]), np.random.default_rng(0)
    return rows, rows.make()(item, rng)


def items_of(context):
    source = context.source("train")
    rows = RecordSource(CodecTokensConfig.of(context.run.stage("codes")).records(context.finished("codes"), "train"))
    return [source[i] | rows[i] for i in range(len(source))]


def test_rows_hold_the_own_side_first_and_its_words_alone(context):
    item = items_of(context)[0]
    rows, made = example_of(context, 2, item)
    assert rows.columns[0] == "codes_0_of_1" and rows.columns[BOOKS] == "codes_0"
    text, codes = rows.content(rows.opening(item, np.random.default_rng(0)))
    said = np.stack([item[name] for name in rows.columns[:BOOKS]], 1)
    np.testing.assert_array_equal(codes[:, :BOOKS], said[: len(codes)])
    assert rows.tokenizer.decode(text.tolist()).split() == list(words_of(item).on(1).words)
    assert made["ids"].shape == made["hidden"].shape == (rows.steps, len(STREAMS)) and not made["hidden"].any()


def test_one_side_alone_hears_nothing_and_text_alone_has_no_codes(context):
    item = items_of(context)[0]
    _, one = example_of(context, 1, item)
    real = one["ids"][one["mask"]][1:]
    assert (real[:, 1 + BOOKS :] == ABSENT).all() and (real[:-1, 1] >= 0).all()
    assert one["hidden"][:, 0].any() and not one["hidden"][:, 1:].any()
    rows, text = example_of(context, 0, item)
    real = text["ids"][text["mask"]]
    assert (real[0] == EMPTY).all() and (real[1:, 1:] == ABSENT).all()
    assert real[1:, 0].tolist() == rows.tokenizer.encode(" " + item["text"])[: rows.steps - 1]
    assert set(text) == set(one)


def test_what_is_heard_is_written_with_no_own_side(context):
    item, spec = items_of(context)[0], spec_of(context)
    rows = STAGE.rows(spec, SideConfig(own=1, parts="other", late=(10, 10)))
    row = rows.from_start(item, np.random.default_rng(0))
    codes = (row[:, 1:] != EMPTY).any(1)
    assert (row[codes, 1 : 1 + BOOKS] == ABSENT).all() and not (row[~codes, 1 : 1 + BOOKS] == ABSENT).any()
    heard = np.stack([item[name] for name in spec.columns[:BOOKS]], 1)
    np.testing.assert_array_equal(row[1 : 1 + len(heard), 1 + BOOKS], heard[: len(row) - 1, 0])
    text = row[(row[:, 0] >= 0) & (row[:, 0] < SIZE), 0]
    assert rows.tokenizer.decode(text.tolist()).split() == list(words_of(item).on(0).words)
    assert int(np.argmax((row[:, 0] >= 0) & (row[:, 0] < SIZE))) >= 10


def test_text_may_come_before_its_speech_or_after(context):
    item, side = items_of(context)[0], SideConfig(own=0, parts="own", late=(-6, 6))
    rows = STAGE.rows(spec_of(context), side)
    drawn = [rows.from_start(item, np.random.default_rng(seed)) for seed in range(12)]
    starts = {int(np.argmax((row[:, 0] >= 0) & (row[:, 0] < SIZE))) for row in drawn}
    assert len(starts) > 3, "the words stand elsewhere in each"
    for row in drawn[1:]:
        np.testing.assert_array_equal(row[: len(drawn[0]), 1], drawn[0][: len(row), 1])


def test_a_stage_learns_all_parts_and_the_next_goes_on(context):
    run_stage(STAGE, context)
    folder = context.run.stage("lm")
    lines = read_metrics(folder.path)
    found = [line for line in lines if any(name.startswith("evaluate/") for name in line)][-1]
    for name in ("text_nats_per_text", "one_nats_per_code", "two_nats_per_text", "two_nats_per_code"):
        assert 0 < found[f"evaluate/{name}"] < 8, name
    later = STAGE.replace(name="later", start_from="lm", tasks=MixtureConfig(parts=TASKS.parts[2:]))
    run_stage(later.replace(train=TrainConfig(steps=1, evaluate_every=1, log_every=1)), context)
    before, after = (trained(context.run.stage(name))[1]["params"] for name in ("lm", "later"))
    moved = np.abs(np.asarray(after["temporal"]["head_0"]) - np.asarray(before["temporal"]["head_0"])).max()
    assert 0 < moved < 5e-3, "one step from where the other ended"


def test_what_does_not_fit_is_refused(context):
    smaller = MODEL.temporal.replace(streams=(SIZE + 2, *[CODES - 1] * (2 * BOOKS)))
    asks = MixtureConfig(parts=(PartConfig(name="none", weight=1.0, example=SideConfig(kinds=("question",))),))
    faults = {
        "only 4 streams are written": STAGE.replace(name="weights", weights=(1.0,) * 7),
        "stage 'codes' makes books of": STAGE.replace(name="sizes", model=MODEL.replace(temporal=smaller)),
        r"kinds is \('question',\)": STAGE.replace(name="nobody", tasks=asks),
    }
    for rule, stage in faults.items():
        with pytest.raises(UserError, match=rule):
            run_stage(stage, context)
    with pytest.raises(UserError, match="must be a side"):
        STAGE.replace(tasks=MixtureConfig(parts=(PartConfig(name="none", weight=1.0),)))
    tokens = CodecTokensConfig(name="codes", source="stage:codec", line=LineConfig())
    with pytest.raises(UserError, match="line is"):
        tokens.check_corpus(ManifestConfig(path="calls.jsonl"))


def test_its_outline_is_what_it_trains():
    tokens = CodecTokensConfig(name="codes", source="nowhere", expect=CODEC)
    run = RunConfig(name="run", corpus=ManifestConfig(path="calls.jsonl", channels=2), stages=(tokens, STAGE))
    assert from_json(run.to_json()) == run
    outlined = STAGE.outline(run).batch
    rows = STAGE.rows(tokens.planned_spec(run), STAGE.sides[0])
    assert outlined["ids"].shape == outlined["hidden"].shape == (4, rows.steps, len(STREAMS))
