"""Segments of labelled frames against `itertools.groupby`, in NumPy and under jit."""

from functools import partial
from itertools import chain, groupby, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.errors import UserError
from slm_jax.token_compression.ctc import RULES, segment_means, segments_of

LENGTH = 10
jitted = {rule: jax.jit(partial(segments_of, rule=rule)) for rule in RULES}
few_labels = st.lists(st.integers(0, 2), max_size=LENGTH)


def plain(labels: list[int], rule: str, limit: int) -> list[list[int]]:
    """The frames of each segment, the long way."""
    runs, at = [], 0
    for label, group in groupby(labels):
        frames = list(range(at, at + len(list(group))))
        runs.append((label, frames))
        at += len(frames)
    if rule == "runs":
        found = [frames for _, frames in runs]
    elif rule == "spoken_runs":
        found = [frames for label, frames in runs if label]
    elif rule == "spoken_frames":
        found = [[frame] for label, frames in runs if label for frame in frames]
    else:
        starts = [frames[0] for label, frames in runs if label]
        edges = [0, *starts[1:], len(labels)]
        found = [list(range(a, b)) for a, b in pairwise(edges)] if starts else []
    found = found or ([list(range(len(labels)))] if labels else [])
    return found if len(found) <= limit else [*found[: limit - 1], [*chain(*found[limit - 1 :])]]


def padded(rows: list[list[int]], garbage: int) -> tuple[np.ndarray, np.ndarray]:
    labels, mask = np.full((len(rows), LENGTH), garbage, np.int32), np.zeros((len(rows), LENGTH), bool)
    for row, values in enumerate(rows):
        labels[row, : len(values)], mask[row, : len(values)] = values, True
    return labels, mask


@pytest.mark.parametrize("rule", RULES)
@given(rows=st.tuples(few_labels, few_labels), garbage=st.integers(0, 2), limit=st.integers(1, LENGTH))
def test_segments_are_those_of_groupby(rule, rows, garbage, limit):
    labels, mask = padded(list(rows), garbage)
    limits = np.array([limit, LENGTH])
    for found in (segments_of(labels, mask, rule=rule, limit=limits), jitted[rule](labels, mask, limit=limits)):
        for row, values in enumerate(rows):
            wanted = plain(values, rule, limits[row])
            ids = np.asarray(found.ids)[row]
            assert found.counts[row] == len(wanted)
            assert [np.flatnonzero(ids == segment).tolist() for segment in range(len(wanted))] == wanted
            assert (ids >= 0).sum() == sum(map(len, wanted))


def test_numpy_stays_numpy():
    found = segments_of(*padded([[1, 1, 0]], 0))
    assert isinstance(found.ids, np.ndarray)
    assert isinstance(found.counts, np.ndarray)


def test_a_blank_parts_two_equal_labels():
    labels, mask = padded([[0, 1, 1, 0, 1]], 0)
    assert segments_of(labels, mask, rule="spoken_runs").ids[0, :5].tolist() == [-1, 0, 0, -1, 1]
    assert segments_of(labels, mask, rule="spoken_spans").ids[0, :5].tolist() == [0, 0, 0, 0, 1]
    other = segments_of(labels, mask, rule="spoken_runs", blank=1)
    assert other.ids[0, :5].tolist() == [0, -1, -1, 1, -1]


def test_means_leave_out_what_is_in_no_segment():
    values = jnp.array([[[1.0], [3.0], [jnp.nan], [5.0]]])
    means = segment_means(values, jnp.array([[0, 0, -1, 2]]), 4)
    assert means[0, :, 0].tolist() == [2.0, 0.0, 5.0, 0.0]


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match="rule is 'words'"):
        segments_of(*padded([[1]], 0), rule="words")
