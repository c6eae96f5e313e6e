"""Whisper-base as it was published, on recordings: numbers, tokens and words of `transformers`, and what was said.

The folders come from `experiments/fetch/`; environment variables name where they are.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.audio.files import read_audio
from slm_jax.evaluation.transcription import word_errors
from slm_jax.generation.beam import BeamConfig
from slm_jax.serving.transcriber import RATE_HZ, Transcriber, Transcription, load_transcriber
from slm_jax.workbench.parity import compare_folder

WEIGHTS, SPEECH = (os.environ.get(f"SLM_JAX_REAL_{name}", "") for name in ("WEIGHTS", "SPEECH"))
FOLDER, BOOK = Path(WEIGHTS) / "whisper-base", Path(SPEECH) / "librivox"

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(
    not (WEIGHTS and SPEECH and FOLDER.is_dir() and BOOK.is_dir()),
    reason="SLM_JAX_REAL_WEIGHTS/whisper-base and SLM_JAX_REAL_SPEECH/librivox are not there (experiments/fetch/)",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A reference that waits for a second core is many times slower where other jobs keep that busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recordings(folder: Path) -> list[dict]:
    """What a manifest says, with the samples."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row | {"samples": read_audio(folder / row["audio_filepath"])} for row in rows]


@pytest.fixture(scope="module")
def book():
    return recordings(BOOK)


@pytest.fixture(scope="module")
def clips(book):
    return [row["samples"] for row in book]


@pytest.fixture(scope="module")
def texts(book):
    return [row["text"].replace("a more a amiable", "a more amiable") for row in book]  # a slip in the file


@pytest.fixture(scope="module")
def system():
    return load_transcriber(FOLDER)


@pytest.fixture(scope="module")
def theirs():
    return transformers.WhisperForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def heard(theirs, clips):
    """What the reference's encoder makes of the clips, once for all tests."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(FOLDER)
    with torch.no_grad():
        return theirs.model.encoder(extractor(clips, sampling_rate=RATE_HZ, return_tensors="pt").input_features)


def said_by_reference(theirs, heard, rows: slice, **settings) -> list[list[int]]:
    """Tokens behind the prefix, up to the end."""
    outputs = transformers.modeling_outputs.BaseModelOutput(heard.last_hidden_state[rows])
    with torch.no_grad():
        made = theirs.generate(encoder_outputs=outputs, task="transcribe", do_sample=False, **settings).tolist()
    rows_of = [[token for token in row if token != 50257] for row in made]
    return [[token for token in row if token < 50257] for row in rows_of]


@pytest.fixture(scope="module")
def greedy(theirs, heard):
    return said_by_reference(theirs, heard, slice(None))


@pytest.fixture(scope="module")
def found(system, clips):
    return system.transcribe(clips)


@pytest.mark.slow(seconds=60)
def test_logits_are_those_of_the_reference(system, theirs, heard, clips, greedy):
    prefix = system.tokens.prefix("en")
    length = max(map(len, greedy))
    mask = np.arange(4 + length) < np.array([4 + len(row) for row in greedy])[:, None]
    ids = np.array([prefix + row + [0] * (length - len(row)) for row in greedy])
    longest = max(map(len, clips))
    samples = np.stack([np.pad(clip, (0, longest - len(clip))) for clip in clips])
    read = jax.jit(lambda params, s, i, m: system.model.apply({"params": params}, s, i, mask=m))
    ours = read(system.params, samples, ids, mask)
    outputs = transformers.modeling_outputs.BaseModelOutput(heard.last_hidden_state)
    with torch.no_grad():
        wanted = theirs(encoder_outputs=outputs, decoder_input_ids=torch.tensor(ids)).logits.numpy()
    apart = np.abs(np.asarray(ours) - wanted)[mask].max()
    print(f"largest difference {apart:.2e} of {np.abs(wanted[mask]).max():.1f}")
    assert apart <= 1e-4 * np.abs(wanted[mask]).max()


def test_greedy_words_are_those_of_the_reference_and_what_was_said(system, found, greedy, texts):
    assert [one.text for one in found] == [system.tokens.decode(row) for row in greedy]
    assert {one.language for one in found} == {"en"}
    errors = word_errors(texts, [one.text for one in found])
    print(f"WER {errors.rate:.3f} of {errors.reference} words")
    assert errors.rate == 0.0


@pytest.mark.slow(seconds=120)
def test_five_beams_find_the_same_words(system, theirs, heard, clips):
    wanted = said_by_reference(theirs, heard, slice(2, 5), num_beams=5)
    ours = system.transcribe(clips[2:5], Transcription(beam=BeamConfig(beams=5)))
    assert [one.text for one in ours] == [system.tokens.decode(row) for row in wanted]


def test_a_trimmed_encoder_hears_the_same_words(system, clips, texts):
    """With a second of silence behind a clip; with none it says the same over and over."""
    config = system.model.config
    trimmed = config.replace(encoder=config.encoder.replace(trim=True))
    said = Transcriber(trimmed, system.params, system.tokens).transcribe(clips, Transcription(max_new=60))
    errors = word_errors(texts, [one.text for one in said])
    print(f"WER {errors.rate:.3f} of {errors.reference} words; {[one.text for one in said]}")
    assert errors.rate < 0.1


@pytest.mark.slow(seconds=120)
def test_more_than_a_minute_is_cut_in_its_pauses(system, clips, texts, found):
    pause = np.zeros(round(0.6 * RATE_HZ), np.float32)
    rounds = [part for clip in clips * 3 for part in (clip, pause)]
    (whole,) = system.transcribe([np.concatenate(rounds)])
    assert whole.seconds > 60 and len(whole.windows) == 3
    errors = word_errors([" ".join(texts * 3)], [whole.text])
    print(f"WER {errors.rate:.3f} of {errors.reference} words, windows {[(a, b) for a, b, _ in whole.windows]}")
    assert errors.rate < 0.03


@pytest.mark.slow(seconds=60)
def test_every_layer_is_that_of_the_reference():
    found = list(compare_folder(FOLDER, 0, "float32"))
    assert len(found) == 5 and all(row.ok for one in found for row in one.rows)
