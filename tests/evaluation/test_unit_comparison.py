import jax.numpy as jnp
import numpy as np

from slm_jax.core.types import Frames
from slm_jax.evaluation.unit_comparison import FeatureSet, compare_features
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig

PHONES, ROWS, T = 4, 6, 40
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, PHONES, (2 * ROWS, T))
CODES = 5.0 * RNG.normal(size=(PHONES, 8))


def frames(values, rows):
    mask = np.ones((len(rows), T), bool)
    mask[-1, T // 2 :] = False  # a padded row
    return Frames(jnp.asarray(values[rows], jnp.float32), jnp.asarray(mask))


def feature_set(values):
    first, second = np.arange(ROWS), np.arange(ROWS, 2 * ROWS)
    return FeatureSet([frames(values, first)], [frames(values, second)])


def test_features_that_tell_the_phones_apart_win_under_every_treatment():
    clear = CODES[LABELS] + 0.1 * RNG.normal(size=(2 * ROWS, T, 8))
    noise = RNG.normal(size=(2 * ROWS, T, 8))
    labels = [*LABELS[ROWS:-1], LABELS[-1, : T // 2]]
    treatments = (PostprocessConfig(), PostprocessConfig(normalise="whiten"))
    kmeans = KMeansConfig(clusters=PHONES, start_rows=100)
    sets = {"clear": feature_set(clear), "noise": feature_set(noise)}
    results = compare_features(sets, labels, PHONES, kmeans, seeds=2, treatments=treatments)
    assert [(one.feature, one.treatment.normalise) for one in results] == [
        ("clear", "none"),
        ("noise", "none"),
        ("clear", "whiten"),
        ("noise", "whiten"),
    ]
    for one in results:
        assert len(one.scores) == 2
        assert {score.frames for score in one.scores} == {(ROWS - 1) * T + T // 2}
        kept = one.to_json()
        pnmi = kept["pnmi"]
        assert 50 < kept["run_bitrate"] < kept["bitrate"] <= 50 * 2  # four units at 50 Hz; a quarter are repetitions
        assert pnmi > 0.95 if one.feature == "clear" else pnmi < 0.2
