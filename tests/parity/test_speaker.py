"""The GE2E speaker encoder against a PyTorch twin with the released names, drawn and as released."""

import importlib.util
import io
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.files import read_audio
from slm_jax.core.trees import count_parameters
from slm_jax.core.types import Frames
from slm_jax.encoders.speaker import SpeakerEmbedder, SpeakerEncoderConfig
from slm_jax.evaluation.speaker import identify, pair_similarities, similarities, speaker_vectors
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_ge2e import GE2E
from slm_jax.interop.model import export, load

torch = pytest.importorskip("torch")
twins = pytest.importorskip("tests.parity.speaker_twin")

SMALL = SpeakerEncoderConfig(mels=12, width=16, layers=2, embedding=10, frames=40, stretches_per_s=5.0)
SHAPE = {"mels": 12, "width": 16, "layers": 2, "embedding": 10}
TOLERANCE = 2e-5
WEIGHTS, SPEECH = (os.environ.get(f"SLM_JAX_REAL_{name}", "") for name in ("WEIGHTS", "SPEECH"))
RELEASED = Path(WEIGHTS) / "ge2e-speaker"
needs_weights = pytest.mark.skipif(
    not (WEIGHTS and RELEASED.is_dir()),
    reason="SLM_JAX_REAL_WEIGHTS/ge2e-speaker is not there: experiments/fetch/real_weights.py makes it",
)
needs_speech = pytest.mark.skipif(
    not (SPEECH and all((Path(SPEECH) / name).is_dir() for name in ("fillets-cs", "fillets-nl", "librivox"))),
    reason="SLM_JAX_REAL_SPEECH does not name a folder made by experiments/fetch/real_speech.py",
)


@pytest.fixture(scope="module")
def twin():
    return twins.drawn(**SHAPE)


@pytest.fixture(scope="module")
def params(twin):
    weights = {name: value.detach().numpy() for name, value in twin.state_dict().items()}
    plan = resolve(GE2E.table(SMALL, "original"), {n: w.shape for n, w in weights.items()}, GE2E.abstract(SMALL))
    return jax.tree.map(jnp.asarray, import_params(plan, weights.__getitem__))


def voice(length: int, loudness: float, seed: int) -> np.ndarray:
    """Noise under a tone that glides: all bands have energy, and it changes."""
    rng, time = np.random.default_rng(seed), np.arange(length) / 16_000
    tone = np.sin(2 * np.pi * (200 + 60 * seed) * time * (1 + time))
    return (loudness * (tone + 0.3 * rng.standard_normal(length))).astype(np.float32)


@pytest.fixture(scope="module")
def clips():
    """One to six stretches of 6,400 samples, soft ones and loud ones; with 7,999 the second one is just too short."""
    lengths = {1: 0.5, 3_000: 0.001, 6_400: 0.3, 8_000: 0.01, 7_999: 0.2, 11_000: 0.2, 23_456: 0.02}
    return [voice(length, loudness, seed) for seed, (length, loudness) in enumerate(lengths.items())]


def test_rows_of_ragged_energies_equal_the_twin_alone(twin, params):
    """What is padding may hold anything."""
    lengths = np.array([30, 17, 1])
    mask = np.arange(30) < lengths[:, None]
    energies = np.abs(np.random.default_rng(0).standard_normal((3, 30, 12))).astype(np.float32)
    frames = Frames(jnp.where(mask[..., None], energies, jnp.nan), jnp.asarray(mask))
    ours = jax.jit(SMALL.make().apply)({"params": params}, frames)
    with torch.no_grad():
        rows = zip(energies, lengths, strict=True)
        wanted = torch.cat([twin(torch.tensor(row[None, :length])) for row, length in rows]).numpy()
    assert np.linalg.norm(wanted[0] - wanted[1]) > 0.05, "rows that are told apart"
    np.testing.assert_allclose(ours, wanted, atol=TOLERANCE)


def test_clips_of_all_lengths_equal_the_twin(twin, params, clips):
    ours = SpeakerEmbedder(SMALL, params, rows=8)(clips)
    wanted = np.stack([twins.embed(twin, clip, frames=40, rate=5.0) for clip in clips])
    assert [len(SMALL.starts(len(clip))) for clip in clips] == [1, 1, 1, 2, 1, 2, 6]
    assert pair_similarities(wanted, [str(i) for i in range(len(clips))])[1].min() < 0.98
    np.testing.assert_allclose(ours, wanted, atol=TOLERANCE)


def test_the_released_shape_has_the_twins_parameters():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in twins.GE2E().state_dict().items()}
    assert len(shapes) == 16
    config = GE2E.read_config({"model_type": "ge2e"})
    assert config == SpeakerEncoderConfig()
    resolve(GE2E.table(config, "original"), shapes, GE2E.abstract(config))
    assert count_parameters(GE2E.abstract(config)) == 1_423_616


def test_a_checkpoint_file_is_read_and_written_back(twin, tmp_path):
    """As released, with the optimizer in the same file."""
    state, hub = twin.state_dict(), GE2E.write_config(SMALL)
    (tmp_path / "released").mkdir()
    torch.save({"step": 1, "model_state": state, "optimizer_state": {"state": {}}}, tmp_path / "released" / "model.pt")
    (tmp_path / "released" / "config.json").write_text(json.dumps(hub))
    config, params = load(tmp_path / "released")
    assert config == SMALL
    written = dict(export_params(GE2E.table(config, "original"), params))
    assert written.keys() == state.keys() - {"similarity_weight", "similarity_bias"}
    for name, array in written.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    export(config, params, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], params)


def test_what_the_fetcher_writes_opens_as_the_released_shape(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    fetch = Path(__file__).parents[2] / "experiments" / "fetch"
    monkeypatch.syspath_prepend(str(fetch))
    spec = importlib.util.spec_from_file_location("real_weights", fetch / "real_weights.py")
    fetcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetcher)
    state, file = twins.GE2E().state_dict(), io.BytesIO()
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}}, file)
    fetcher.ge2e({"resemblyzer/pretrained.pt": file.getvalue()}.__getitem__, tmp_path)
    config, params = load(tmp_path)
    assert config == SpeakerEncoderConfig()
    np.testing.assert_array_equal(params["lstm"]["kernel_in_0"], state["lstm.weight_ih_l0"].T)


@pytest.fixture(scope="module")
def released():
    return SpeakerEmbedder(*load(RELEASED))


@pytest.fixture(scope="module")
def recordings():
    """Speaker -> 8 clips of 2 to 4 s: two actors each in Czech and Dutch, and what a reader of a book has."""
    found = {}
    for folder in (Path(SPEECH) / name for name in ("fillets-cs", "fillets-nl", "librivox")):
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
        for row in rows:
            known = row["speaker"] in ("cs-big", "cs-small", "nl-big", "nl-small", "librivox")
            if known and row["duration"] >= 2 and len(found.setdefault(row["speaker"], [])) < 8:
                found[row["speaker"]].append(read_audio(folder / row["audio_filepath"])[: 4 * 16_000])
    return found


@needs_weights
@needs_speech
def test_released_weights_give_the_twins_vectors(released, recordings):
    from safetensors.torch import load_file

    twin = twins.GE2E().eval()
    twin.load_state_dict(load_file(RELEASED / "model.safetensors"))
    clips = [clips[0] for clips in recordings.values()]
    wanted = np.stack([twins.embed(twin, clip) for clip in clips])
    np.testing.assert_allclose(released(clips), wanted, atol=TOLERANCE)


@needs_weights
@needs_speech
def test_clips_of_one_speaker_are_nearer_than_those_of_two(released, recordings):
    speakers = [speaker for speaker, clips in recordings.items() for _ in clips]
    vectors = released([clip for clips in recordings.values() for clip in clips])
    same, other = pair_similarities(vectors, speakers)
    print(f"same {same.mean():.3f} (least {same.min():.3f}), other {other.mean():.3f} (most {other.max():.3f})")
    assert same.mean() > other.mean() + 0.1
    assert (same[:, None] > other).mean() > 0.9
    enrolled = np.arange(len(speakers)) % 2 == 0
    names, voices = speaker_vectors(vectors[enrolled], [s for s, one in zip(speakers, enrolled, strict=True) if one])
    right = [names.index(s) for s, one in zip(speakers, enrolled, strict=True) if not one]
    found = identify(similarities(vectors[~enrolled], voices), right)
    print(found)
    assert found.accuracy > 0.9
