"""Encoders, adapter and text LM as one model: what stands where, whatever the padding and however it is decoded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.assemblies.speech_aware_lm import TEXT, SpeechAwareLMConfig, splice
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.chunked import ChunkedEncoderConfig
from slm_jax.encoders.weighted_layers import WeightedLayersConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from tests.assemblies.small_speech_aware import CONFIG, LM, RATE_HZ, WIDTH, asked, drawn, layout_of, voice
from tests.contracts.checks import assert_close
from tests.contracts.test_adapters import ADAPTERS, inputs
from tests.shapes import ENCODERS

WHISPER = WhisperEncoderConfig(mel=whisper_log_mel(), layers=1, width=16, heads=2, hidden=16, max_frames=20)
CLIP, LENGTH = 8_000, 96
VARIABLES = drawn()
CONVERSATIONS = (
    asked(voice(0.5), "What is said?", answer="yes"),
    asked("First", voice(0.31, 1), "or", voice(0.4, 2), answer="the second one"),
    asked("No clip at all.", answer="so"),
    asked(voice(0.2, 3), answer="a"),
)


def rows(conversations=CONVERSATIONS, config=CONFIG, answered=True, clips=2):
    """A right-padded batch as `data.examples.speech_prompts` makes it."""
    from slm_jax.data.examples.speech_prompts import SpeechPromptExample, stacked
    from slm_jax.data.examples.speech_tasks import SpeechTaskConfig

    layout = layout_of(config)
    example = SpeechPromptExample(layout, SpeechTaskConfig(), RATE_HZ, CLIP, LENGTH, clips)
    made = [{**example.samples(one), **example.row(layout.entries(one, answered))} for one in conversations]
    return stacked(made)


@partial(jax.jit, static_argnums=0)
def logits_of(config, variables, batch):
    args = (batch[name] for name in ("samples", "sample_mask", "ids", "speech_at", "mask"))
    return config.make().apply(variables, *args)


@partial(jax.jit, static_argnums=0)
def vectors_of(config, variables, batch):
    def read(model):
        speech = model.speech(model.heard(batch["samples"], batch["sample_mask"]))
        return model.vectors(batch["ids"], speech, batch["speech_at"], batch["mask"])

    return config.make().apply(variables, method=read)


def test_splice_equals_a_loop():
    rng = np.random.default_rng(0)
    text, speech = rng.normal(size=(2, 7, 3)), rng.normal(size=(4, 5, 3))  # two clips of five frames for each row
    at = np.array([[TEXT, 0, 4, 5, 9, TEXT, 2], [7, TEXT, TEXT, TEXT, 3, 3, TEXT]])
    wanted = text.copy()
    for row, place in np.ndindex(at.shape):
        if at[row, place] != TEXT:
            clip, frame = divmod(at[row, place], 5)
            wanted[row, place] = speech[2 * row + clip, frame]
    np.testing.assert_allclose(splice(jnp.asarray(text), jnp.asarray(speech), jnp.asarray(at)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_makes_as_many_vectors_as_it_says(name):
    """The index table counts on it: of a padded clip come `frames_out` of its padded length."""
    config, shorter = ADAPTERS[name], "shorter" in name
    module = config.make()

    def frames(length):
        return inputs(jnp.zeros((1, length, 6)), jnp.ones((1, length), bool))

    params = jax.eval_shape(module.init, jax.random.key(0), *frames(12))["params"]
    for length in (5, 18):
        out = jax.eval_shape(lambda params, length=length: module.apply({"params": params}, *frames(length)), params)
        assert out.values.shape[1] == out.mask.shape[1] == config.frames_out(length - shorter), length


@pytest.mark.parametrize(("lasts", "frames"), [("longer", 25), ("shorter", 24)])
def test_two_encoders_give_as_many_frames_as_their_join_says(lasts, frames):
    encoders = (ENCODERS["log_mel"], ENCODERS["waveform"].replace(conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8))))
    config = CONFIG.replace(encoders=encoders, join=JoinedConfig(widths=(16, 16), lasts=lasts))
    module, clip = config.make(), 8_040
    variables = drawn(config)
    assert (
        sorted({encoder.frame_count(clip) for encoder in encoders}) == [24, 25] and config.frames_heard(clip) == frames
    )
    assert config.frames_out(clip) == -(-frames // 4)
    samples = jnp.zeros((3, 2, clip))
    heard = jax.eval_shape(lambda v: module.apply(v, samples, jnp.ones(samples.shape, bool), method="heard"), variables)
    assert heard.values.shape == (6, frames, 32)
    assert {"encoder", "encoder_1", "join", "adapter", "lm"} == set(variables["params"])


def test_each_clip_is_read_where_it_stands():
    batch = rows()
    read = np.asarray(vectors_of(CONFIG, VARIABLES, batch).values)
    for row, number in ((0, 0), (1, 0), (1, 1), (3, 0)):
        samples, real = batch["samples"][row, number], batch["sample_mask"][row, number]
        alone = vectors_of(
            CONFIG,
            VARIABLES,
            {**rows(CONVERSATIONS[:1]), "samples": samples[None, None], "sample_mask": real[None, None]}
            | {"speech_at": np.arange(LENGTH)[None] % CONFIG.frames_out(CLIP)},
        )
        stride, count = CONFIG.frames_out(CLIP), CONFIG.frames_out(int(real.sum()))
        at = batch["speech_at"][row]
        place = np.flatnonzero((at >= number * stride) & (at < (number + 1) * stride))
        assert len(place) == count > 0
        assert_close(read[row, place], np.asarray(alone.values)[0, :count], 1e-5)
    words = CONFIG.make().apply(VARIABLES, jnp.asarray(batch["ids"]), method="embed")
    written = (batch["speech_at"] == TEXT) & batch["mask"]
    assert_close(read, words, 1e-6, where=written)


def test_a_row_is_the_same_alone_and_padded_on_either_side():
    batch = rows()
    together = np.asarray(logits_of(CONFIG, VARIABLES, batch))
    for row in range(len(CONVERSATIONS)):
        alone = logits_of(CONFIG, VARIABLES, rows(CONVERSATIONS[row : row + 1]))
        assert_close(together[row : row + 1], alone, 1e-5, where=batch["mask"][row : row + 1])
    left = {name: np.stack([np.roll(x, int((~m).sum())) for x, m in zip(batch[name], batch["mask"], strict=True)])
            for name in ("ids", "speech_at", "mask")}  # fmt: skip
    assert left["mask"][:, -1].all() and not left["mask"][:, 0].any()
    moved = np.asarray(logits_of(CONFIG, VARIABLES, {**batch, **left}))
    for row, real in enumerate(batch["mask"]):
        assert_close(moved[row][left["mask"][row]], together[row][real], 1e-5)


def test_what_stands_in_padding_has_no_effect():
    batch = rows()
    noise = np.random.default_rng(0)
    garbage = {
        "samples": np.where(batch["sample_mask"], batch["samples"], np.nan),
        "ids": np.where(batch["mask"], batch["ids"], noise.integers(0, 264, batch["ids"].shape)).astype(np.int32),
        "speech_at": np.where(batch["mask"], batch["speech_at"], 1),
    }
    wanted = logits_of(CONFIG, VARIABLES, batch)
    assert_close(logits_of(CONFIG, VARIABLES, {**batch, **garbage}), wanted, 1e-6, where=batch["mask"])
    other = {
        **batch,
        "samples": np.roll(batch["samples"], -1, axis=0),
        "sample_mask": np.roll(batch["sample_mask"], -1, 0),
    }
    assert np.abs(np.asarray(logits_of(CONFIG, VARIABLES, other)) - wanted)[0][batch["mask"][0]].max() > 1e-2


def test_decoding_with_caches_gives_what_whole_rows_give():
    """Prompts as vectors, the answer forced: its log-probabilities are those of teacher forcing."""
    prompts, whole = rows([one[:-1] for one in CONVERSATIONS], answered=False), rows()
    read = vectors_of(CONFIG, VARIABLES, prompts)
    answers = [row[weight > 0] for row, weight in zip(whole["ids"], whole["target_weight"], strict=True)]
    forced = np.full((len(answers), max(map(len, answers))), -1)
    for row, answer in enumerate(answers):
        forced[row, : len(answer)] = answer
    how, key = SamplingConfig(max_new=forced.shape[1], temperature=0.0), jax.random.key(0)
    made = generate(CONFIG.make(), VARIABLES, read.values, read.mask, key, how, forced=forced)
    log_probs = jax.nn.log_softmax(logits_of(CONFIG, VARIABLES, whole), axis=-1)
    for row, answer in enumerate(answers):
        places = np.flatnonzero(whole["target_weight"][row]) - 1
        assert_close(made.log_probs[row, : len(answer)], log_probs[row, places, answer], 1e-4)


SEGMENTS = CTCSegmentsConfig(vocabulary=4, rule="runs", keep=1.0)
RUNS = CONFIG.replace(adapter=CTCAdapterConfig(width=WIDTH, segments=SEGMENTS))


def test_where_an_adapter_gives_less_than_it_may_nothing_is_read():
    """A row with room for all frames gives what a row gives that has no entries without a vector."""
    variables, batch = drawn(RUNS), rows(config=RUNS)
    read = jax.tree.map(np.asarray, vectors_of(RUNS, variables, batch))
    holes = batch["mask"] & ~read.mask
    assert holes[0].any() and not holes[2].any()
    assert (holes <= (batch["speech_at"] != TEXT)).all() and not read.values[holes].any()
    order = np.argsort(~read.mask, axis=1, kind="stable")
    packed = {name: np.take_along_axis(batch[name], order, axis=1) for name in ("ids", "speech_at")}
    packed["mask"] = np.take_along_axis(read.mask, order, axis=1)
    wanted = np.asarray(logits_of(RUNS, variables, {**batch, **packed}))
    found = np.take_along_axis(np.asarray(logits_of(RUNS, variables, batch)), order[..., None], axis=1)
    assert_close(found, wanted, 1e-5, where=packed["mask"])


def test_gradients_are_finite_beside_clips_that_are_not_there():
    batch = rows()

    def loss(params):
        logits = logits_of(CONFIG, {"params": params}, batch)
        return jnp.square(jnp.where(batch["mask"][..., None], logits, 0)).mean()

    gradients = jax.jit(jax.grad(loss))(VARIABLES["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for part in ("encoder", "adapter", "lm"):
        assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[part])) > 0, part


@pytest.mark.parametrize(
    ("encoder", "window"),
    [
        (ENCODERS["log_mel"], None),
        (WHISPER, 6_400),
        (WeightedLayersConfig(encoder=WHISPER), 6_400),
        (ChunkedEncoderConfig(encoder=WHISPER, window=6_400), None),
        (WeightedLayersConfig(encoder=ChunkedEncoderConfig(encoder=WHISPER, window=6_400)), None),
    ],
)
def test_how_long_a_clip_may_be_is_known(encoder, window):
    config = CONFIG.replace(encoders=(encoder,))
    assert config.window == window
    assert CONFIG.replace(encoders=(encoder, WHISPER), join=JoinedConfig(widths=(16, 16))).window == 6_400
    assert from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoders": ()}, "encoders is"),
        ({"encoders": (WHISPER, WHISPER)}, "join is None"),
        ({"join": JoinedConfig(widths=(16, 16))}, "there are 1"),
        ({"adapter": LinearAdapterConfig(width=8)}, "adapter.width is 8: the language model's 16"),
        ({"lm": LM.replace(width=32)}, "adapter.width is 16: the language model's 32"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, told):
    with pytest.raises(UserError, match=told):
        SpeechAwareLMConfig(**{**{name: getattr(CONFIG, name) for name in ("encoders", "adapter", "lm")}, **changes})


def test_frames_are_counted_through_a_chain():
    chain = ChainConfig(parts=(LinearAdapterConfig(width=8, stack=2), LinearAdapterConfig(width=WIDTH, stack=3)))
    config = CONFIG.replace(adapter=chain)
    assert [config.frames_out(n) for n in (0, 2_000, 8_000, 16_000)] == [0, 1, 4, 9]
