"""A whole system with random weights: batched equals single, and what comes back has the right shapes and rules."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import PhoneticTokenizer
from slm_jax.audio.files import resample
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, spoken, written
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.unit_speech_lm import UnitDecoding
from slm_jax.serving.unit_voice import padded, pitch_rows
from tests.serving.drawn import HOP, drawn_unit_speech_lm, noise

UNITS = 8
SHORT = UnitDecoding(max_new=12, min_new=3)


@pytest.fixture(scope="module")
def system():
    return drawn_unit_speech_lm(UNITS)


def waveforms():
    rng = np.random.default_rng(1)
    return [0.1 * rng.normal(size=n).astype(np.float32) for n in (8000, 12_345, 400)]


def test_encoding_gives_runs_and_durations_of_every_frame(system):
    speech = system.encode(waveforms())
    for one, samples in zip(speech, waveforms(), strict=True):
        assert one.durations.sum() == (len(samples) - 400) // 320 + 1
        assert (np.diff(one.runs) != 0).all()
        assert one.runs.max() < UNITS
    with pytest.raises(UserError, match="shorter than one frame"):
        system.encode([np.zeros(399, np.float32)])


def test_continuations_hold_units_only_and_do_not_depend_on_neighbours(system):
    prompts = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 0])]
    sampling = SamplingConfig(max_new=12)
    keys = jax.random.split(jax.random.key(0), 2)
    made = system.generate(prompts, keys, sampling)
    for i, prompt in enumerate(prompts):
        alone = system.generate([prompt], keys[i : i + 1], sampling)[0]
        np.testing.assert_array_equal(made[i], alone)
        assert ((made[i] >= 0) & (made[i] < UNITS)).all()
        assert len(made[i]) <= 12


def test_speech_is_as_long_as_its_units_and_batched_equals_single(system):
    runs, durations = [np.array([1, 2, 3]), np.array([5, 0])], [np.array([3, 1, 9]), np.array([40, 41])]
    f0 = [(np.linspace(90, 180, n).astype(np.float32), np.arange(n) % 7 > 1) for n in (13, 81)]
    both = system.decode(runs, durations=durations, f0=f0)
    for i in range(2):
        assert len(both[i]) == durations[i].sum() * HOP
        alone = system.decode(runs[i : i + 1], durations=durations[i : i + 1], f0=f0[i : i + 1])[0]
        # the noise of the excitation is one row for all, so that a row alone hears the same
        np.testing.assert_allclose(both[i], alone, atol=1e-4)
    with pytest.raises(UserError, match="empty sequence"):
        system.decode([np.array([], int)])


def test_what_is_predicted_where_nothing_is_given_does_not_depend_on_neighbours(system):
    rng = np.random.default_rng(3)
    runs = [rng.integers(0, UNITS, size=size) for size in (4, 90, 33)]
    spoken = system.decode(runs)
    scale = max(1.0, max(float(np.abs(row).max()) for row in spoken))
    for row, units in zip(spoken, runs, strict=True):
        assert len(row) % HOP == 0
        assert len(row) >= len(units) * HOP
        alone = system.decode([units])[0]
        np.testing.assert_allclose(row / scale, alone / scale, atol=1e-5)


def test_log_probs_cover_the_end(system):
    scores = system.log_probs([np.array([1, 2, 3]), np.array([0])])
    assert [len(row) for row in scores] == [4, 2]
    assert all((row <= 0).all() for row in scores)


def test_padding_helpers():
    ids, mask = padded([np.array([1, 2]), np.array([3])], 4)
    np.testing.assert_array_equal(ids, [[1, 2, 0, 0], [3, 0, 0, 0]])
    assert mask.sum() == 3
    rows = pitch_rows([(np.array([100.0, 0.0]), np.array([True, False]))], 3)
    np.testing.assert_array_equal(rows["f0_hz"], [[100, 0, 0]])
    np.testing.assert_array_equal(rows["voiced"], [[True, False, False]])


def only_clip(reply):
    (message,) = reply.messages
    assert message.role == "assistant"
    (clip,) = message.speech
    return clip


def test_a_reply_is_the_continuation_in_speech_with_or_without_its_prompt(system):
    asked = [spoken(noise(1.0), 16_000)]
    key = jax.random.key(4)
    whole, rest = (system.respond(asked, SHORT.replace(with_prompt=on), key)[0] for on in (True, False))
    prompt, new = whole.trace["prompt_units"], whole.trace["new_units"]
    np.testing.assert_array_equal(prompt, system.encode([noise(1.0)])[0].runs)
    np.testing.assert_array_equal(new, system.generate([prompt], key, SHORT.sampling)[0])
    np.testing.assert_array_equal(rest.trace["new_units"], new)
    assert len(new) <= len(whole.trace["log_probs"]) <= len(new) + 1
    assert (whole.trace["log_probs"] < 0).all()
    for reply, units in ((whole, np.concatenate([prompt, new])), (rest, new)):
        clip = only_clip(reply)
        assert clip.rate_hz == system.rate_hz
        np.testing.assert_allclose(clip.samples, system.decode([units])[0], atol=1e-6)
    plain = system.respond(asked, SHORT.sampling, key)[0]  # voice and prompt as the system has them
    np.testing.assert_array_equal(only_clip(plain).samples, only_clip(whole).samples)


@dataclasses.dataclass(frozen=True)
class CountingTokenizer(PhoneticTokenizer):
    """The tokenizer with a list of how many waveforms it was given at each call."""

    calls: list = dataclasses.field(default_factory=list)

    def encode_all(self, waveforms):
        self.calls.append(len(waveforms))
        return super().encode_all(waveforms)


def test_a_prompt_that_comes_several_times_is_encoded_once(system):
    fields = {one.name: getattr(system.tokenizer, one.name) for one in dataclasses.fields(system.tokenizer)}
    tokenizer = CountingTokenizer(**fields)
    counting = dataclasses.replace(system, tokenizer=tokenizer)
    first, second = spoken(noise(1.0), 16_000), spoken(noise(1.0, seed=1), 16_000)
    replies = counting.respond([first, first, second, first], SHORT, jax.random.key(0))
    assert tokenizer.calls == [2]
    apart = system.respond(
        [spoken(one[0].speech[0].samples, 16_000) for one in (first, first, second, first)], SHORT, jax.random.key(0)
    )
    for one, other in zip(replies, apart, strict=True):
        np.testing.assert_array_equal(one.trace["new_units"], other.trace["new_units"])


def test_speech_at_another_rate_is_resampled(system):
    at_24 = resample(noise(1.0), 16_000, 24_000)
    heard = system.respond([spoken(at_24, 24_000)], SHORT, jax.random.key(0))[0].trace["prompt_units"]
    np.testing.assert_array_equal(heard, system.encode([resample(at_24, 24_000, 16_000)])[0].runs)


@pytest.fixture
def unchecked():
    """As users have it: nobody compares arguments with annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


SOUND = np.full(16_000, 0.1, np.float32)


@pytest.mark.parametrize(
    ("conversations", "message"),
    [
        ([written("hello")], "conversation 0 holds text: this system reads speech only"),
        ([(Message("user", (Speech(SOUND, 16_000), Text("go on"))),)], "holds text"),
        (spoken(SOUND, 16_000), "conversation 0 is 'Message': a conversation is a tuple of messages"),
        ([spoken(SOUND, 16_000), ()], "conversation 1 is 'tuple'"),
        ([(*spoken(SOUND, 16_000), *spoken(SOUND, 16_000))], "2 clips in 2 messages"),
        ([spoken(np.zeros(0, np.float32), 16_000)], "conversation 0: samples is 'empty'"),
        ([spoken(np.full(8000, np.nan, np.float32), 16_000)], "no NaN and no infinity"),
        ([spoken(np.full(399, 0.1, np.float32), 16_000)], "399 samples': shorter than one frame"),
    ],
    ids=["text", "text beside", "no list", "no message", "two", "empty", "nan", "short"],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_heard_is_one_clear_error(system, conversations, message):
    with pytest.raises(UserError, match=message):
        system.respond(conversations, SHORT, jax.random.key(0))
    with pytest.raises(UserError, match=message):
        system.log_prob(conversations)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((1, 16_000), np.float32), r"\(1, 16000\): one channel"),
        (np.zeros(16_000, np.int16), "'int16': floating point"),
        (np.float32(1.0), "one channel, a vector"),
        (np.array([np.inf] * 800, np.float32), "no NaN and no infinity"),
    ],
    ids=["rank", "dtype", "a number", "inf"],
)
@pytest.mark.usefixtures("unchecked")
def test_encode_refuses_what_is_no_waveform(system, samples, message):
    with pytest.raises(UserError, match=f"samples of utterance 0.*{message}"):
        system.encode([samples])


def test_nobody_asks_nobody_answers(system):
    assert system.respond([], None, jax.random.key(0)) == []


def test_an_unknown_voice_names_the_nearest(system):
    asked = [spoken(noise(1.0), 16_000)]
    with pytest.raises(UserError, match="one voice without a name"):
        system.respond(asked, SHORT.replace(speaker="ann"), jax.random.key(0))
    several = dataclasses.replace(system, speakers=("anna", "bob"))
    with pytest.raises(UserError, match=r"did you mean 'anna'.*voices: anna, bob"):
        several.respond(asked, SHORT.replace(speaker="ann"), jax.random.key(0))


def silenced(system):
    """The same system, whose model finds the end likelier than anything else, always."""
    ids = jnp.arange(system.lm.config.vocabulary) == system.vocabulary.eos_id
    params = jax.tree.map(jnp.zeros_like, system.lm_params)
    flat = jax.tree_util.tree_map_with_path(lambda path, leaf: end_only(jax.tree_util.keystr(path), leaf, ids), params)
    return dataclasses.replace(system, lm_params=flat)


def end_only(path, leaf, ids):
    if leaf.ndim == 2 and leaf.shape[0] == len(ids):
        return jnp.where(ids[:, None], 10.0, leaf)
    return jnp.ones_like(leaf) if "final" in path and "bias" in path else leaf


def test_an_empty_continuation_is_silence_of_no_length(system):
    asked = [spoken(noise(1.0), 16_000)]
    mute, greedy = silenced(system), UnitDecoding(max_new=4, temperature=0.0)
    whole, rest = (mute.respond(asked, greedy.replace(with_prompt=on), jax.random.key(0))[0] for on in (True, False))
    assert len(whole.trace["new_units"]) == 0 == len(only_clip(rest).samples)
    assert len(only_clip(whole).samples) > 0


def test_without_durations_a_unit_lasts_as_long_as_it_does_in_the_mean(system):
    even = dataclasses.replace(system, frames_per_unit=2.6)
    assert [len(row) for row in even.decode([np.array([1, 2, 3]), np.array([4])])] == [3 * 3 * HOP, 3 * HOP]
