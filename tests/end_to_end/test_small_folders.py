"""Somebody's own few recordings through the verbs: what has no held-out speech is left out, nothing else fails."""

from pathlib import Path

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli import evaluate, generate, train
from slm_jax.core.errors import UserError

SMALLEST = Path(__file__).parent / "smallest.py"
RATE = 16_000
TURNED = """
import runpy
from slm_jax.data.corpus import FolderConfig
base = runpy.run_path({smallest!r})["config"]
config = base.replace(corpus=FolderConfig(path={folder!r}, processes=1), prompt_s=0.5)
"""


def hummed(seed, seconds=1.5):
    """Voiced sound of a gliding pitch with pauses: something that every stage can work on."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    f0 = 140 + 40 * np.sin(2 * np.pi * (0.7 + 0.1 * seed) * time)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    formant = 600 + 300 * np.sin(2 * np.pi * 2 * time)
    voice = sum(np.exp(-(((k * f0 - formant) / 400) ** 2)) * np.sin(k * phase) for k in range(1, 12))
    return 0.2 * voice * (np.sin(2 * np.pi * 1.3 * time + seed) > -0.7) + 0.005 * rng.normal(size=len(time))


def config_of(folder, count):
    """The config file of the smallest GSLM on `count` recordings; their lengths share one shape."""
    for i in range(count):
        write_wav(folder / "speech" / f"{i}.wav", hummed(i, 1.5 + 0.005 * (i % 20)), RATE)
    path = folder / "own.py"
    path.write_text(TURNED.format(smallest=str(SMALLEST), folder=str(folder / "speech")))
    return [str(path), "--data-dir", str(folder / "data")]


def sizes():
    return [pytest.param(count, marks=pytest.mark.slow(seconds=60)) for count in (1, 2, 3, 6, 20)]


@pytest.mark.parametrize("count", sizes())
def test_a_dry_run(tmp_path, count):
    done = train.main([*config_of(tmp_path, count), "--dry-run"])
    assert len(done["stages"]) == 7


@pytest.mark.parametrize("count", sizes())
def test_trained_prompted_and_judged(tmp_path, capsys, count):
    arguments, run = config_of(tmp_path, count), tmp_path / "run"
    assert len(train.main([*arguments, "--workdir", str(run)])["stages"]) == 7
    heard = capsys.readouterr().err
    prompt = str(tmp_path / "speech" / "0.wav")
    made = generate.main([str(run), "--prompts", prompt, "--count", "2", "--out", str(tmp_path / "out")])["made"]
    assert len(made) == 2 and all(Path(one["file"]).stat().st_size > 1000 for one in made)
    figures = evaluate.main([str(run), "--utterances", "2"])
    assert (run / "report.html").is_file() and figures["units"] == []  # nobody knows the phones of these
    if count >= 3:
        assert "dev split is empty" not in heard
        assert len(generate.main([str(run), "--count", "1", "--out", str(tmp_path / "own")])["made"]) == 1
        assert np.isfinite(figures["language_model"]["model"]) and figures["resynthesis"]
    else:
        assert "stage lm: the dev split is empty" in heard
        assert "held-out" in figures["language_model_left_out"] and "held-out" in figures["resynthesis_left_out"]
        with pytest.raises(UserError, match="held-out"):
            generate.main([str(run)])
