"""Forced alignment against all paths written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.token_compression.ctc_alignment import forced_alignment
from tests.token_compression.ctc_paths import FRAMES, LABELS, best, log_softmax, paths, rows

aligned = jax.jit(forced_alignment, static_argnames="blank")


def arguments(blank: int = 0) -> tuple[jax.Array, ...]:
    """The rows; with another blank the classes are turned round."""
    batch = rows()
    log_probs = np.asarray(jax.nn.log_softmax(batch["logits"]))
    assert np.isnan(log_probs[~batch["frame_mask"]]).all()
    labels = batch["labels"]
    if blank:
        log_probs, labels = log_probs[..., [1, 2, 0]], labels - 1
    return tuple(map(jnp.asarray, (log_probs, batch["frame_mask"], labels, batch["label_mask"])))


@pytest.mark.parametrize("blank", [0, 2])
def test_it_is_the_best_of_all_paths(blank):
    batch = rows()
    found = aligned(*arguments(blank), blank=blank)
    for row, (labels, frames) in enumerate(zip(LABELS, FRAMES, strict=True)):
        log_probs = log_softmax(batch["logits"][row, :frames])
        if not list(paths(log_probs, labels)):
            assert found.score[row] == -np.inf and not np.asarray(found.spans[row]).any()
            continue
        score, spans = best(log_probs, labels)
        assert float(found.score[row]) == pytest.approx(score, rel=1e-5), labels
        assert found.spans[row, : len(labels)].tolist() == spans, labels
        assert not np.asarray(found.spans[row, len(labels) :]).any()


def test_what_fits_and_what_does_not_is_both_there():
    found = aligned(*arguments())
    assert np.isfinite(found.score).tolist() == [True, True, True, True, False, True, False]


def test_a_path_of_probability_zero_is_none():
    log_probs, frame_mask, labels, label_mask = arguments()
    never = aligned(log_probs.at[0, :, 1].set(-jnp.inf), frame_mask, labels, label_mask)
    assert never.score[0] == -np.inf and not np.asarray(never.spans[0]).any()
    np.testing.assert_array_equal(never.score[1:], aligned(log_probs, frame_mask, labels, label_mask).score[1:])


def test_a_peak_per_label_is_found_where_it_stands():
    peaks = jnp.full((1, 40, 5), -9.0).at[:, :, 0].set(-0.01)
    for label, frame in ((3, 4), (3, 11), (1, 12), (4, 30)):
        peaks = peaks.at[0, frame : frame + 2, 0].set(-9.0).at[0, frame : frame + 2, label].set(0.0)
    labels = jnp.array([[3, 3, 1, 4]])
    found = aligned(peaks, jnp.ones((1, 40), bool), labels, jnp.ones((1, 4), bool))
    assert found.spans[0].tolist() == [[4, 6], [11, 12], [12, 14], [30, 32]]
