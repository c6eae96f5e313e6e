"""DTW and ABX as their definitions say, in float64 and one item at a time."""

import itertools

import numpy as np

EPSILON = 1e-6


def frame_distances(a, b, distance):
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    if distance == "angular":
        cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        return np.arccos(np.clip(cosines, -1, 1)) / np.pi
    if distance == "euclidean":
        return np.linalg.norm(a - b, axis=-1)
    there = (a * np.log((a + EPSILON) / (b + EPSILON))).sum(-1)
    if distance == "kl":
        return there
    return (there + (b * np.log((b + EPSILON) / (a + EPSILON))).sum(-1)) / 2


def slow_dtw(distances):
    """Costs from the first cell on; then the path back from the last one, which says how long it is."""
    n, m = distances.shape
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0, 0] = 0.0
    for i, j in itertools.product(range(n), range(m)):
        cost[i + 1, j + 1] = distances[i, j] + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    i, j, length = n, m, 1
    while (i, j) != (1, 1):
        both, left, up = cost[i - 1, j - 1], cost[i, j - 1], cost[i - 1, j]
        if both <= left and both <= up:
            i, j = i - 1, j - 1
        elif left <= up:
            j -= 1
        else:
            i -= 1
        length += 1
    return cost[n, m] / length


def slow_abx(items, frames, distance="angular"):
    """(within, across) over all triplets of `items`, whose frames are given; nothing is drawn."""
    known = {}

    def apart(x, other):
        if (x, other) not in known:
            known[x, other] = slow_dtw(frame_distances(frames[x], frames[other], distance))
        return known[x, other]

    rows = ({}, {})
    places = range(len(items))
    for a, b, x in itertools.product(places, places, places):
        one, two, three = items[a], items[b], items[x]
        same_place = one.context == two.context == three.context and one.speaker == two.speaker
        if a == x or not same_place or one.phone != three.phone or one.phone == two.phone:
            continue
        across = three.speaker != one.speaker
        to_a, to_b = apart(x, a) if across else apart(min(x, a), max(x, a)), apart(x, b)
        wrong = 0.5 if abs(to_a - to_b) < 1e-9 else float(to_b < to_a)
        cell = one.phone, two.phone, one.speaker, one.context, three.speaker
        rows[across].setdefault(cell, []).append(wrong)
    return tuple(averaged({cell: np.mean(errors) for cell, errors in found.items()}) for found in rows)


def averaged(errors):
    """Contexts and speakers of X first, then speakers, then pairs of phones."""
    for kept in (3, 2):
        groups = {}
        for cell, error in errors.items():
            groups.setdefault(cell[:kept], []).append(error)
        errors = {cell: np.mean(found) for cell, found in groups.items()}
    return np.mean(list(errors.values())) if errors else None
