import json

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.intervals import bootstrap_interval
from slm_jax.evaluation.pairs import ClipScore, ScoredPair, pair_figures, read_scores, rescored, write_scores


def pair(number, right, wrong, group="", item=None, test="test"):
    """A pair of clips with these (ln p, tokens)."""
    name = str(number)
    return ScoredPair(test, name, item or name, group, ClipScore(*right), ClipScore(*wrong))


WON, LOST, TIED = ((-4.0, 4), (-8.0, 4)), ((-8.0, 4), (-4.0, 4)), ((-4.0, 4), (-4.0, 4))
LONGER = (-6.0, 6), (-4.0, 2)
"""Likelier by the mean, and less likely by the sum."""


def test_a_tie_is_one_half_and_mean_and_sum_may_differ():
    pairs = [pair(0, *WON), pair(1, *LOST), pair(2, *TIED), pair(3, *LONGER)]
    by_mean, by_sum = (pair_figures(pairs, score) for score in ("mean", "sum"))
    assert (by_mean["score"], by_sum["score"]) == ("mean", "sum")
    assert by_mean["tests"]["test"]["accuracy"] == (1 + 0 + 0.5 + 1) / 4
    assert by_sum["tests"]["test"]["accuracy"] == (1 + 0 + 0.5 + 0) / 4
    assert by_mean["tests"]["test"]["interval"] == list(bootstrap_interval([1.0, 0.0, 0.5, 1.0]))
    assert by_sum["tests"]["test"]["shorter"] == (0.5 + 0.5 + 0.5 + 0) / 4
    assert "groups" not in by_mean["tests"]["test"]


def test_groups_are_judged_apart_and_their_mean_is_the_macro_accuracy():
    pairs = [pair(0, *WON, group="a"), pair(1, *WON, group="a"), pair(2, *WON, group="a"), pair(3, *LOST, group="b")]
    found = pair_figures([*pairs, pair(0, *LOST, test="other")])["tests"]
    assert found["test"]["accuracy"] == 0.75 and found["test"]["macro_accuracy"] == 0.5
    assert {name: part["accuracy"] for name, part in found["test"]["groups"].items()} == {"a": 1.0, "b": 0.0}
    assert found["test"]["groups"]["b"]["interval"] is None
    assert found["other"]["accuracy"] == 0.0 and found["other"]["pairs"] == 1


def test_voices_of_one_item_count_once():
    voices = [pair(number, *WON, item="word") for number in range(3)]
    found = pair_figures([*voices, pair(3, *LOST)])["tests"]["test"]
    assert found["accuracy"] == 0.5
    assert (found["pairs"], found["items"]) == (4, 2)
    mixed = pair_figures([*voices, pair(3, *LOST, item="word"), pair(4, *LOST)])["tests"]["test"]
    assert mixed["accuracy"] == 0.375


def test_kept_scores_give_the_same_figures_and_those_of_the_other_score(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.normal(-50.0, 9.0, (40, 2))
    counts = rng.integers(20, 60, (40, 2))
    pairs = [
        pair(place, *zip(row.tolist(), tokens.tolist(), strict=True), group="äb"[place % 2])
        for place, (row, tokens) in enumerate(zip(scores, counts, strict=True))
    ]
    path = write_scores(tmp_path / "kept" / "scores.jsonl", pairs, {"score": "sum", "archive": "here"})
    assert read_scores(path) == ({"score": "sum", "archive": "here"}, pairs)
    assert rescored(path) == pair_figures(pairs, "sum") != pair_figures(pairs, "mean")
    assert rescored(path, "mean") == pair_figures(pairs, "mean")
    assert len(path.read_text().splitlines()) == 41


def test_a_score_is_of_all_tokens_and_must_be_a_number():
    assert ClipScore.of(np.array([-1.0, -2.0], np.float32), "clip") == ClipScore(-3.0, 2)
    with pytest.raises(UserError, match="of sWUGGY 7 is nan: must be finite"):
        ClipScore.of([np.nan], "sWUGGY 7")
    with pytest.raises(UserError, match="a clip has a token at least"):
        ClipScore.of([], "clip")
    with pytest.raises(UserError, match="score is 'median': one of mean, sum"):
        pair_figures([pair(0, *WON)], "median")


def test_a_damaged_file_is_refused_by_its_line(tmp_path):
    path = write_scores(tmp_path / "scores.jsonl", [pair(0, *WON), pair(1, *LOST)], {"score": "mean"})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:30]]))
    with pytest.raises(UserError, match=r"line 3 of .*scores.jsonl.*must be a JSON object"):
        read_scores(path)
    path.write_text("\n".join([*lines[:2], json.dumps({"id": "1"})]))
    with pytest.raises(UserError, match=r"line 3 of .*no scored pair"):
        read_scores(path)
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="its first line says 'pairs 1'"):
        read_scores(path)
    with pytest.raises(UserError, match=r"nowhere.jsonl.*does not exist"):
        rescored(tmp_path / "nowhere.jsonl")
