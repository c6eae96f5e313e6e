"""ABX against the scorer of ZeroSpeech, `zerospeech-libriabx2`.

Its package imports pandas and torchaudio for models and tables that no score here needs, so that
`pip install --no-deps zerospeech-libriabx2` is enough: the modules with these imports are stood in for.
"""

import importlib
import importlib.util
import sys
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.evaluation.abx import ABXConfig, abx
from slm_jax.evaluation.abx_items import read_items

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libri_light_dtw") is None or importlib.util.find_spec("zrc_abx2") is None,
    reason="zerospeech-libriabx2 is not installed",
)
RATE = 50
ALL = ABXConfig(group=1000, speakers=1000)


@pytest.fixture
def scorer(monkeypatch):
    package = ModuleType("zrc_abx2")
    package.__path__ = list(importlib.util.find_spec("zrc_abx2").submodule_search_locations)
    models = ModuleType("zrc_abx2.cpc.feature_loader")
    models.FeatureModule = models.buildFeature = models.loadModel = None
    known = {"zrc_abx2": package, "zrc_abx2.cpc.feature_loader": models, "pandas": ModuleType("pandas")}
    for name, module in known.items():
        monkeypatch.setitem(sys.modules, name, module)
    return importlib.import_module("zrc_abx2.eval_ABX")


def written(folder, seed=0, count=90):
    """Items in files of five speakers, and the features of each."""
    rng = np.random.default_rng(seed)
    lines, features = ["#file onset offset #phone prev-phone next-phone speaker"], {}
    for speaker in "uvwxy":
        now = 0.0
        for _ in range(count // 5):
            length = float(rng.uniform(0.05, 0.2))
            context = rng.choice(["A B", "C D", "E F"])
            lines.append(f"file_{speaker} {now:.4f} {now + length:.4f} {rng.choice(list('ptk'))} {context} {speaker}")
            now += length
        features[f"file_{speaker}"] = rng.normal(size=(int(now * RATE), 6)).astype(np.float32)
    path = folder / "few.item"
    path.write_text("\n".join(lines) + "\n")
    return path, features


def reference(scorer, path, features, distance):
    files = [(name, name) for name in features]

    def frames(name):
        return torch.tensor(features[name].copy())

    pooling = scorer.Pooling.NONE
    found = scorer.EvalABX()._ABX(
        *(pooling, 0, frames, str(path), files, distance, RATE, ["within", "across"], ["within"]),
        max_x_across=1000,
        max_size_group=1000,
    )
    return found["within-within"], found["across-within"]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_errors_are_those_of_the_scorer(scorer, tmp_path, distance):
    path, features = written(tmp_path)
    if distance == "euclidean":  # the scorer brings frames to length 1 for every distance
        features = {name: rows / np.linalg.norm(rows, axis=-1, keepdims=True) for name, rows in features.items()}
    ours = abx(features, read_items(path), RATE, ALL.replace(distance=distance.replace("cosine", "angular")))
    assert (ours.within, ours.across) == pytest.approx(reference(scorer, path, features, distance), abs=1e-6)


def test_units_whose_distances_tie_are_scored_alike(scorer, tmp_path):
    path, features = written(tmp_path, seed=1)
    units = {name: np.eye(3, dtype=np.float32)[rows[:, :3].argmax(-1)] for name, rows in features.items()}
    ours = abx(units, read_items(path), RATE, ALL)
    assert (ours.within, ours.across) == pytest.approx(reference(scorer, path, units, "cosine"), abs=1e-6)


def test_one_pair_after_the_other_costs_the_same(scorer):
    from libri_light_dtw import _dtw

    from slm_jax.evaluation.dtw import dtw

    rng = np.random.default_rng(0)
    distances = rng.integers(0, 4, (40, 8, 8)).astype(np.float32)
    n, m = rng.integers(1, 9, (2, 40)).astype(np.int32)
    slow = [_dtw(int(a), int(b), one[:a, :b].copy(), True) for one, a, b in zip(distances, n, m, strict=True)]
    np.testing.assert_array_equal(np.asarray(dtw(*map(jnp.asarray, (distances, n, m)))), np.asarray(slow, np.float32))
