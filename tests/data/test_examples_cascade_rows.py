"""Stretches of a corpus as rows of a cascade: the same stretch of time of units and codes."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec, single
from slm_jax.data.examples.cascade_rows import CascadeRowsConfig
from slm_jax.schemes.cascade import audiolm
from slm_jax.token_compression.dedup import dedup_row

SEMANTIC = single("units", 50, 640, 16_000, columns=("units",))
BOOKS = tuple(Codebook(name=name, size=100) for name in ("q0", "q1", "q2"))
ACOUSTIC = TokenSpec(codebooks=BOOKS, hop=320, rate_hz=16_000, columns=("a", "b", "c"))
CASCADE = audiolm(SEMANTIC, ACOUSTIC, coarse=2, chunk_s=4 / 50)


def item(units: int, frames: int) -> dict[str, np.ndarray]:
    """Unit and code of a frame tell when it was."""
    time = np.arange(frames)
    return {"units": np.arange(units) // 3, "a": time, "b": time + 1, "c": time + 2}


@pytest.mark.parametrize("size", [(20, 41), (3, 6), (40, 80)])
def test_units_and_codes_of_a_row_are_of_one_stretch(size):
    rows, given = CascadeRowsConfig(cascade=CASCADE, number=1, frames=12), item(*size)
    starts = set()
    for seed in range(8):
        example = rows.make()(given, np.random.default_rng(seed))
        assert example["ids"].shape == example["mask"].shape == example["target_mask"].shape == (rows.longest,)
        books = CASCADE.books_of(1, example["ids"][example["mask"]])
        start, frames = int(books["q0"][0]), len(books["q0"])
        assert start % 2 == 0 and frames == min(12, 2 * size[0])
        np.testing.assert_array_equal(books["q1"], np.arange(start, start + frames) + 1)
        np.testing.assert_array_equal(books["units"], dedup_row(given["units"][start // 2 : (start + frames) // 2])[0])
        assert example["target_mask"].sum() == 2 * frames + 1 and not example["target_mask"][~example["mask"]].any()
        starts.add(start)
    assert (len(starts) > 1) == (size[0] > 6)


def test_rows_of_units_alone_and_of_a_chunk_need_only_their_columns():
    units = CascadeRowsConfig(cascade=CASCADE, number=0, frames=12)
    assert units.longest == 8
    example = units.make()({"units": np.arange(30)}, np.random.default_rng(0))
    assert example["target_mask"].tolist() == [False] + [True] * 7
    fine = CascadeRowsConfig(cascade=CASCADE, number=2, frames=4)
    assert fine.longest == 1 + 4 * 3
    given = {name: values for name, values in item(20, 41).items() if name != "units"}
    example = fine.make()(given, np.random.default_rng(0))
    assert example["target_mask"].tolist() == [False] * 9 + [True] * 4


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: CascadeRowsConfig(cascade=CASCADE, number=3, frames=4), "number is 3: there are 3 passes"),
        (lambda: CascadeRowsConfig(cascade=CASCADE, number=1, frames=5), "frames is 5: must be whole units of 2"),
        (lambda: CascadeRowsConfig(cascade=CASCADE, number=2, frames=6), "frames is 6: .* chunk of at most 4"),
        (
            lambda: CascadeRowsConfig(cascade=CASCADE, number=1, frames=4).stretch(
                item(41, 41), np.random.default_rng(0)
            ),
            "units of a clip is 41: the 41 frames of codes are 2 to a unit",
        ),
    ],
)
def test_what_does_not_fit_is_refused(refused, message):
    with pytest.raises(UserError, match=message):
        refused()
