"""Whisper as a system on drawn weights: what a clip gets depends on the clip, not on what it is read with."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.windows import quiet_windows
from slm_jax.core.contracts import System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Text, spoken
from slm_jax.generation.beam import BeamConfig
from slm_jax.serving.transcriber import RATE_HZ, Transcriber, Transcription, load_transcriber
from slm_jax.text.whisper_tokens import WhisperTokens
from tests.serving.drawn import noise
from tests.shapes import WHISPER
from tests.whisper_folder import LANGUAGES, SETTINGS, START, write_whisper

WINDOW = 5_120
CLIPS = [noise(0.02 + 0.03 * place, place) for place in range(9)]
LONG = noise(0.9, 11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("hub") / "whisper")


@pytest.fixture(scope="module")
def system(folder):
    return load_transcriber(folder)


@pytest.fixture(scope="module")
def nine(system):
    return system.transcribe(CLIPS)


def test_clips_get_in_a_batch_what_they_get_alone(system, nine):
    assert len({found.text for found in nine}) >= 7, "what says the same of every clip would pass as well"
    assert all(len(found.text.split()) >= 1 for found in nine)
    assert system.transcribe(CLIPS[4:5]) == nine[4:5]
    assert system.transcribe(CLIPS[3:6]) == nine[3:6]
    assert system.transcribe(CLIPS, Transcription(rows=2)) == nine


def test_the_words_are_those_that_the_whole_model_finds_likeliest(system, nine):
    """Token by token, without a cache, under the rules of the folder."""
    tokens, clip = system.tokens, CLIPS[2]
    heard = nine[2]
    ids = tokens.prefix(heard.language, "transcribe")
    read = jax.jit(lambda ids: system.model.apply({"params": system.params}, jnp.asarray(clip)[None], ids))
    said = []
    for step in range(WHISPER.decoder.max_positions - len(ids)):
        logits = np.array(read(jnp.array([np.pad([*ids, *said], (0, 24 - len(ids) - step))]))[0, len(ids) + step - 1])
        logits[SETTINGS["suppress_tokens"]] = -np.inf
        logits[SETTINGS["begin_suppress_tokens"] if step == 0 else []] = -np.inf
        said.append(int(logits.argmax()))
        if said[-1] == tokens.end:
            break
    assert heard.text == tokens.decode(said)
    assert heard.windows == ((0.0, len(clip) / RATE_HZ, heard.text),)


def test_the_language_is_the_likeliest_after_the_start(system, nine):
    rows = np.stack([np.pad(clip, (0, WINDOW - len(clip))) for clip in CLIPS])
    start = jnp.full((len(rows), 1), START)
    logits = jax.jit(lambda rows: system.model.apply({"params": system.params}, rows, start))(rows)[:, 0]
    names = {number: name for name, number in LANGUAGES.items()}
    found = [names[max(names, key=lambda number, row=row: float(row[number]))] for row in logits]
    assert [one.language for one in nine] == found
    assert len(set(found)) > 1
    told = system.transcribe(CLIPS[:2], Transcription(language="cs"))
    assert [one.language for one in told] == ["cs", "cs"]
    assert any(one.text != other.text for one, other in zip(told, nine, strict=False) if other.language != "cs")


def test_a_long_recording_is_its_windows(system):
    (whole, short) = system.transcribe([LONG, CLIPS[0]], Transcription(rows=3))
    cuts = quiet_windows(LONG, WINDOW, RATE_HZ)
    assert len(cuts) == 4
    apart = system.transcribe([LONG[a:b] for a, b in cuts], Transcription(language=whole.language))
    assert whole.language == system.transcribe([LONG[: cuts[0][1]]])[0].language
    assert [text for _, _, text in whole.windows] == [one.text for one in apart]
    assert whole.text == " ".join(one.text for one in apart if one.text)
    assert [(a, b) for a, b, _ in whole.windows] == [(a / RATE_HZ, b / RATE_HZ) for a, b in cuts]
    assert (whole.seconds, short) == (len(LONG) / RATE_HZ, system.transcribe(CLIPS[:1])[0])


def test_beams_translation_and_a_limit_change_what_is_said(system, nine):
    beams = system.transcribe(CLIPS[:3], Transcription(beam=BeamConfig(beams=3)))
    assert system.transcribe(CLIPS[1:2], Transcription(beam=BeamConfig(beams=3))) == beams[1:2]
    assert [one.text for one in system.transcribe(CLIPS, Transcription(task="translate"))] != [x.text for x in nine]
    assert [one.text for one in beams] != [one.text for one in nine[:3]]
    (short,) = system.transcribe(CLIPS[2:3], Transcription(max_new=1))
    assert short.text == nine[2].text.split()[0]


def test_trimmed_windows_end_in_silence_and_are_read_together(folder, nine):
    plain = load_transcriber(folder)
    wide = plain.model.config.encoder.replace(trim=True)
    trimmed = Transcriber(plain.model.config.replace(encoder=wide), plain.params, plain.tokens)
    together = trimmed.transcribe(CLIPS[:3])
    assert trimmed.transcribe(CLIPS[1:2]) == together[1:2]
    assert [one.text for one in together] == [one.text for one in nine[:3]], "a second fills these windows"


def test_a_trimmed_window_hears_a_second_of_silence(system):
    config = WHISPER.replace(encoder=WHISPER.encoder.replace(trim=True, max_frames=150))
    params = {**system.params, "encoder": {**system.params["encoder"], "positions": jnp.zeros((150, 16))}}
    heard = Transcriber(config, params, system.tokens).heard(CLIPS[:2], 8)
    assert heard.values.shape == (2, 100, 16), "whole seconds, so that few programs are compiled"
    assert heard.mask.sum(1).tolist() == [-(-(len(clip) + 16_000) // 320) for clip in CLIPS[:2]]


def test_it_is_a_system_that_answers_speech_with_words(system, nine):
    assert isinstance(system, System)
    replies = system.respond([spoken(CLIPS[0], RATE_HZ), spoken(CLIPS[1], RATE_HZ)], None, jax.random.key(0))
    assert [reply.messages for reply in replies] == [(Message("assistant", (Text(found.text),)),) for found in nine[:2]]
    assert replies[1].trace == {"language": nine[1].language}
    with pytest.raises(UserError, match="reads speech only"):
        system.respond([(Message("user", (Text("hello"),)),)], None, jax.random.key(0))


def test_no_clips_are_no_transcripts(system):
    assert system.transcribe([]) == []


REFUSED = {
    "empty": ([CLIPS[0], np.zeros(0, np.float32)], Transcription(), "clip 1 is 'empty'"),
    "NaN": ([np.array([0.1, np.nan], np.float32)], Transcription(), "clip 0 is 'not finite'"),
    "too many": (CLIPS[:1], Transcription(max_new=21), "max_new is 21: the decoder has room for 20"),
    "language": (CLIPS[:1], Transcription(language="xx"), "language is 'xx': must be one of cs, en, nl"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_read(system, name, monkeypatch):
    clips, how, message = REFUSED[name]
    monkeypatch.setattr(system, "heard", None)
    with pytest.raises(UserError, match=message):
        system.transcribe(clips, how)


@pytest.mark.parametrize("field, value", [("task", "sing"), ("max_new", 0), ("rows", 0)])
def test_settings_without_meaning_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is {value!r}"):
        Transcription(**{field: value})


def test_an_english_model_is_asked_for_no_language(folder, tmp_path):
    english = write_whisper(tmp_path / "en", settings={"is_multilingual": False, "suppress_tokens": [32, 33, 34]})
    (found,) = load_transcriber(english).transcribe(CLIPS[3:4])
    assert found.language == "en"
    with pytest.raises(UserError, match="English and nothing else"):
        load_transcriber(english, Transcription(task="translate")).transcribe(CLIPS[:1])


def test_weights_and_sums_in_bfloat16(folder, nine):
    low = load_transcriber(folder, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(low.params)} == {"bfloat16"}
    assert low.model.config.encoder.dtype == low.model.config.decoder.dtype == "bfloat16"
    assert len(low.transcribe(CLIPS[:1])[0].text.split()) >= 1


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(folder, system):
    fewer = WHISPER.replace(decoder=WHISPER.decoder.replace(vocabulary=37))
    with pytest.raises(UserError, match="tokenizer is '38 tokens': the table of the decoder has 37 rows"):
        Transcriber(fewer, system.params, WhisperTokens(folder))


def test_a_folder_without_settings_says_which_file_it_lacks(folder, tmp_path):
    other = write_whisper(tmp_path / "bare", settings=SETTINGS)
    (other / "generation_config.json").unlink()
    with pytest.raises(UserError, match=r"generation_config.json is 'absent"):
        load_transcriber(other)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "whisper"
