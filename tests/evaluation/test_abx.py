import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.abx import ABXConfig, abx
from slm_jax.evaluation.abx_items import Item, frames_of, one_hot, read_items, triphones
from tests.evaluation.slow_abx import slow_abx

RATE = 100
ALL = ABXConfig(group=1000, speakers=1000)


def drawn(seed=0, count=40, phones="pbt", speakers="uvw", contexts=("ae", "io"), clear=0.0):
    """Items one after the other in one file per speaker, and frames that tell the phones apart as far as `clear`."""
    rng = np.random.default_rng(seed)
    codes = dict(zip(phones, rng.normal(size=(len(phones), 4)), strict=True))
    items, frames = [], {speaker: [] for speaker in speakers}
    for _ in range(count):
        speaker, phone = rng.choice(list(speakers)), rng.choice(list(phones))
        before, after = rng.choice(contexts)
        start, length = sum(map(len, frames[speaker])), int(rng.integers(1, 7))
        frames[speaker].append((clear * codes[phone] + rng.normal(size=(length, 4))).astype(np.float32))
        items.append(Item(speaker, start / RATE, (start + length + 1) / RATE, phone, before, after, speaker))
    return items, {name: np.concatenate(rows) for name, rows in frames.items()}


def cut(items, features):
    return [frames_of(item, features[item.file], RATE) for item in items]


@pytest.mark.parametrize("distance", ["angular", "euclidean"])
def test_errors_equal_brute_force_over_all_triplets(distance):
    items, features = drawn()
    scores = abx(features, items, RATE, ALL.replace(distance=distance))
    assert scores.items == len(items)
    within, across = slow_abx(items, cut(items, features), distance)
    assert (scores.within, scores.across) == (pytest.approx(within), pytest.approx(across))
    assert scores.triplets_within > 20 and scores.triplets_across > 100


def test_a_distance_that_is_not_symmetric():
    items, features = drawn(1, 30)
    soft = {name: np.exp(rows) / np.exp(rows).sum(-1, keepdims=True) for name, rows in features.items()}
    scores = abx(soft, items, RATE, ALL.replace(distance="kl"))
    assert (scores.within, scores.across) == pytest.approx(slow_abx(items, cut(items, soft), "kl"))


def test_units_tie_and_a_tie_counts_one_half():
    items, features = drawn(2)
    units = {name: one_hot((rows[:, 0] > 0).astype(int), 2) for name, rows in features.items()}
    scores = abx(units, items, RATE, ALL)
    assert (scores.within, scores.across) == pytest.approx(slow_abx(items, cut(items, units)))
    mute = {name: one_hot(np.zeros(len(rows), int), 2) for name, rows in features.items()}
    silent = abx(mute, items, RATE, ALL)
    assert (silent.within, silent.across) == (0.5, 0.5)


def test_clear_features_have_few_errors_and_noise_has_half():
    items, features = drawn(3, 200, clear=20.0)
    clear, noise = (abx(one, items, RATE) for one in (features, drawn(3, 200)[1]))
    assert clear.across < 0.01 and 0.4 < noise.across < 0.6
    few = abx(features, items, RATE, ABXConfig(group=2, speakers=1))
    assert few.pairs < clear.pairs and few.triplets_across < clear.triplets_across


def test_the_order_of_averaging_by_hand():
    """One context with 1 error of 1, one with 0 errors of many: the mean of contexts is one half."""
    near, far = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    rows = [("p", "c", near), ("p", "c", far), ("b", "c", near), *[("p", "d", near)] * 4, *[("b", "d", far)] * 3]
    items = [
        Item("f", k / RATE, (k + 2) / RATE, phone, context, "x", "s") for k, (phone, context, _) in enumerate(rows)
    ]
    scores = abx({"f": np.concatenate([row[2] for row in rows])}, items, RATE, ALL)
    # in c: (p, b) X = far: A near 0.5, B near 0.5: tie; X = near: A far, B the same: wrong: 3/4. (b, p) has one b: none
    # in d: nothing is wrong; pairs (p, b) 3/8 and (b, p) 0
    assert scores.within == pytest.approx((3 / 8 + 0) / 2)
    assert scores.across is None and scores.triplets_across == 0


def test_frames_of_an_item_are_those_whose_middles_it_holds():
    frames = np.arange(10)[:, None].astype(np.float32)
    item = Item("f", 0.02, 0.06, "a", "b", "c", "s")
    assert frames_of(item, frames, 100)[:, 0].tolist() == [2, 3, 4]  # middles at 25, 35, 45; 55 ends with the item
    assert len(frames_of(item._replace(onset_s=0.058), frames, 100)) == 0
    assert len(frames_of(item._replace(onset_s=0.5, offset_s=0.9), frames, 100)) == 0
    left_out = abx({"f": frames}, [item._replace(onset_s=0.058), item._replace(file="g"), item], 100)
    assert left_out.items == 1 and left_out.within is None and left_out.pairs == 0


def test_items_from_spans_touch_and_hold_no_silence():
    phones = ["sil", "a", "b", "c", "d", "e"]
    starts, ends = [0.0, 0.1, 0.2, 0.3, 0.45, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    (item,) = triphones("f", "s", starts, ends, phones, left_out=["sil"])
    assert item == Item("f", 0.1, 0.4, "b", "a", "c", "s")
    assert len(triphones("f", "s", starts, ends, phones)) == 2


def test_published_files_are_read(tmp_path):
    path = tmp_path / "few.item"
    lines = (
        "#file onset offset #phone prev-phone next-phone speaker\n6295-1 0.1 0.35 AH B T 6295\n6295-1 .2 .5 T AH K 1\n"
    )
    path.write_text(lines)
    assert read_items(path) == [
        Item("6295-1", 0.1, 0.35, "AH", "B", "T", "6295"),
        Item("6295-1", 0.2, 0.5, "T", "AH", "K", "1"),
    ]
    path.write_text("#heading\n6295-1 0.1 AH B T 6295\n")
    with pytest.raises(UserError, match=r"line 2 .*7 columns"):
        read_items(path)
    path.write_text("#heading\n6295-1 now 0.2 AH B T 6295\n")
    with pytest.raises(UserError, match=r"line 2 .*seconds"):
        read_items(path)


def test_settings_are_checked():
    with pytest.raises(UserError, match="distance"):
        ABXConfig(distance="cosine")
    with pytest.raises(UserError, match="group"):
        ABXConfig(group=1)
