"""Training a codec: it resumes to the bit with its judges and averages, cuts of a batch agree, sound comes out."""

import os
import signal

import jax
import numpy as np
import pytest

from slm_jax.assemblies.codec import settled
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.examples.waveform_segments import LOUDNESS, ChannelConfig, WaveformSegmentConfig
from slm_jax.data.records import RecordSource
from slm_jax.parallel.sharding import unbox
from slm_jax.quantizers.codebooks import COLLECTION, CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.stages import RunConfig
from slm_jax.training.stops import Interrupted
from tests.codecs import CODECS, drawn_variables
from tests.training.small_answers import CORPUS, MeasuringContext, Tones, carry_out, context_of
from tests.training.small_codec import MODEL, STAGE


class Stopping(MeasuringContext):
    """Is told to stop while it reads."""

    reads = 0

    def source(self, split, kinds=None):
        context = self

        class Told(Tones):
            def __getitem__(self, index):
                type(context).reads += 1
                if type(context).reads == 30:
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().__getitem__(index)

        return Told() if split == "train" else super().source(split, kinds)


class Passing(MeasuringContext):
    """With lengths for passes over all of it."""

    lengths = (6_000, 16_000)


def context_in(folder, kind=MeasuringContext):
    plain = context_of(folder)
    return kind(plain.run, plain.corpus, plain.data_dir, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    return carry_out(STAGE, context_in(folder))


@pytest.mark.slow(seconds=40)
def test_it_resumes_to_the_bit_in_the_middle_of_both_players(finished, tmp_path):
    with pytest.raises(Interrupted):
        carry_out(STAGE, context_in(tmp_path, Stopping))
    again = carry_out(STAGE, context_in(tmp_path))
    one, other = (flatten_by_path(trained(folder)[1]) for folder in (finished, again))
    assert one.keys() == other.keys() and any(path.startswith(COLLECTION) for path in one)
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def test_everything_that_learns_has_moved_and_is_logged(finished):
    lines = read_metrics(finished.path)
    logged = set().union(*lines)
    wanted = {"codec/spectral", "codec/adversarial", "codec/features", "codec/commitment", "judges/loss"}
    assert wanted <= logged and {"evaluate/spectral", "evaluate/perplexity"} <= logged
    assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    balance = trained(finished)[1]["balance"]
    assert float(balance["weight"]) == pytest.approx(1 - 0.9**6) and all(map(float, balance["sums"].values()))
    books = trained(finished)[1][COLLECTION]["generator"]["quantizer"]["codebooks"]
    assert float(np.asarray(books["usage"]).sum()) > 0 and np.isfinite(np.asarray(books["entries"])).all()


def test_the_trained_codec_is_taken_out_of_its_stage(finished):
    config, part = STAGE.model_of(finished)
    variables = {name: tree[part] for name, tree in trained(finished)[1].items() if part in tree}
    samples = np.random.default_rng(0).standard_normal((1, 10 * MODEL.hop)).astype(np.float32)
    codes = config.make().apply(variables, jax.numpy.asarray(samples), method="encode")
    assert codes.ids.shape == (1, 10, 2)


@pytest.mark.parametrize("books", [pytest.param(None, marks=pytest.mark.slow(seconds=20)), 1])
def test_its_codes_are_tokens_that_language_models_read(finished, books):
    context = context_in(finished.path.parents[1], Passing)
    stage = CodecTokensConfig(name=f"codes_{books}", source="stage:codec", books=books)
    folder = carry_out(stage, context)
    spec = stage.spec(context)
    assert spec == stage.planned_spec(RunConfig(name="run", corpus=context.corpus, stages=(STAGE, stage)))
    assert spec.sizes == (8,) * (books or 2) and spec.frames_per_second == 1000
    assert (spec.units == 8 and spec.runs == ("runs",)) if books else spec.runs is None
    rows, source = RecordSource(stage.records(folder, "train")), context.source("train")
    tokenizer = stage.tokenizer(context)
    for i in (0, 3):
        (codes,) = tokenizer.encode_all([source[i]["samples"].astype(np.float32) / 32768])
        for column in spec.columns:
            np.testing.assert_array_equal(rows[i][column], codes[column])
        if books:
            np.testing.assert_array_equal(np.repeat(rows[i]["runs"], rows[i]["durations"]), rows[i][spec.columns[0]])


def test_a_codec_from_a_folder_is_a_part_of_the_run(tmp_path):
    books = ResidualVQConfig(width=12, books=2, codebook=CodebookConfig(size=8, width=12))
    model = CODECS["over spectra"].replace(quantizer=books)
    save_model(tmp_path / "codec", *settled(model, drawn_variables(model, 0)))
    context = context_in(tmp_path / "run", Passing)
    stage = CodecTokensConfig(name="codes", source=str(tmp_path / "codec"))
    config = RunConfig(name="run", corpus=context.corpus, stages=(stage,))
    stage.check_outside(None)
    folder = carry_out(stage, context)
    (tmp_path / "codec").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"part 'frozen/codec' of stage 'codes' is missing"):
        stage.tokenizer(context)
    (context.run.path / "parts").mkdir()
    (tmp_path / "gone").rename(context.run.path / "parts" / "frozen.codec")
    spec, tokenizer = stage.spec(context), stage.tokenizer(context)
    stated = config.replace(stages=(stage.replace(expect=tokenizer.config),))
    assert spec == tokenizer.spec == stated.stages[0].planned_spec(stated) and spec.sizes == (8, 8)
    rows, source = RecordSource(stage.records(folder, "train")), context.source("train")
    (codes,) = tokenizer.encode_all([source[0]["samples"].astype(np.float32) / 32768])
    for column in spec.columns:
        np.testing.assert_array_equal(rows[0][column], codes[column])
    (context.run.path / "parts" / "frozen.codec").rename(tmp_path / "gone")
    save_model(context.run.path / "parts" / "frozen.codec", *settled(model, drawn_variables(model, 1)))
    with pytest.raises(UserError, match="began with the weights"):
        stage.tokenizer(context)


def test_judges_move_in_so_large_a_share_of_the_steps():
    _, (judges, codec) = STAGE.replace(judges_move=0.5)._learner(None)
    assert (judges.name, judges.chance, codec.chance) == ("judges", 0.5, 1.0)
    assert 60 < sum(judges.moves_at(step) for step in range(160)) < 100


def test_a_source_that_holds_no_codec_is_refused(tmp_path):
    stage = CodecTokensConfig(name="codes", source=str(tmp_path))
    with pytest.raises(UserError, match=r"neither config\.json"):
        stage.check_outside(None)


def test_segments_sound_as_through_other_lines():
    item = {"samples": (8000 * np.sin(np.arange(4000) * 0.3)).astype(np.int16)}
    plain = WaveformSegmentConfig(samples=2000, rate_hz=16_000)
    changed = plain.replace(channel=ChannelConfig(share=1.0, noise_db=(20.0, 20.0)))
    one, other = (c.make()(item, np.random.default_rng(0)) for c in (plain, changed))
    assert one["samples"].shape == other["samples"].shape == (2000,) and one["sample_mask"].all()
    assert np.abs(one["samples"] - other["samples"]).max() > 0.01 and np.abs(other["samples"]).max() <= 1
    short = plain.make()({"samples": item["samples"][:500]}, np.random.default_rng(0))
    assert short["sample_mask"].sum() == 500 and not short["samples"][500:].any()
    with pytest.raises(UserError, match="share is 2"):
        ChannelConfig(share=2.0)


def test_loudness_alone_is_one_factor_within_its_range():
    item = {"samples": (8000 * np.sin(np.arange(4000) * 0.3)).astype(np.int16)}
    plain = WaveformSegmentConfig(samples=2000, rate_hz=16_000)
    example, gains = plain.replace(channel=LOUDNESS).make(), []
    for seed in range(20):
        one, other = (make(item, np.random.default_rng(seed))["samples"] for make in (plain.make(), example))
        gains.append(float((one * other).sum() / np.square(one).sum()))
        np.testing.assert_allclose(other, gains[-1] * one, atol=1e-5)
    assert 10 ** (-10 / 20) <= min(gains) < 0.6 and 1.0 < max(gains) <= 10 ** (6 / 20)


@pytest.mark.parametrize(("waveform", "judged"), [(0.0, True), (0.0, False), (0.1, False)])
def test_the_balance_keeps_its_form_whichever_losses_there_are(waveform, judged):
    stage = STAGE.replace(losses=STAGE.losses.replace(waveform=waveform), judges=STAGE.judges if judged else None)
    initialise, players = stage._learner()
    variables = unbox(jax.eval_shape(initialise, jax.random.key(0)))
    batch = stage.outline(RunConfig(name="run", corpus=CORPUS, stages=(stage,))).batch
    loss = jax.eval_shape(players[-1].objective, variables, batch, jax.random.key(0))
    after = jax.eval_shape(players[-1].statistics.update, variables, loss.stats)
    assert jax.tree.structure(after["balance"]) == jax.tree.structure(variables["balance"])
