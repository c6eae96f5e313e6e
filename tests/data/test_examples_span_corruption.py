import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.errors import UserError
from slm_jax.data.examples.span_corruption import SpanCorruptionConfig, spans_to_hide

CONFIG = SpanCorruptionConfig(length=40, first_sentinel=100, eos=2, start=0, sentinels=10)


def test_each_span_has_a_sentinel_where_it_was_and_before_what_it_hides():
    hidden = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1], bool)
    read, written = CONFIG.corrupted(np.arange(10, 20), hidden)
    assert read.tolist() == [10, 100, 13, 14, 101, 16, 102, 2]
    assert written.tolist() == [100, 11, 12, 101, 15, 102, 17, 18, 19, 2]
    read, written = CONFIG.corrupted(np.arange(10, 13), np.ones(3, bool))
    assert (read.tolist(), written.tolist()) == ([100, 2], [100, 10, 11, 12, 2])


def restored(read: list[int], written: list[int]) -> list[int]:
    """The text again: every sentinel replaced by what is written behind it."""
    spans: dict[int, list[int]] = {}
    for token in written[:-1]:
        if token >= 100:
            spans[token] = last = []
        else:
            last.append(token)
    return [one for token in read[:-1] for one in spans.get(token, [token])]


@given(length=st.integers(0, 90), seed=st.integers(0, 2**16), share=st.sampled_from([0.15, 0.5, 0.9]))
def test_together_both_say_the_whole_text_and_fit_their_rows(length, seed, share):
    config = CONFIG.replace(share=share, sentinels=40)
    text = [int(one) for one in np.random.default_rng(length).integers(10, 99, length)]
    made = config.make(lambda _: text)({"text": ""}, np.random.default_rng(seed))
    read, written = made["ids"][made["mask"]].tolist(), made["targets"][made["target_mask"]].tolist()
    assert (made["ids"].shape, made["targets"].shape) == ((40,), (config.written,))
    assert made["decoder_ids"].tolist()[: len(written)] == [0, *written[:-1]]
    again = restored(read, written)
    first = next((i for i in range(length) if text[i : i + len(again)] == again), 0)
    assert again == text[first : first + len(again)] and len(again) == min(length, 39)
    hidden, spans = config.hidden(len(again))
    assert sum(token < 100 for token in written) == hidden + 1
    assert [token for token in read if token >= 100] == list(range(100, 100 + spans))


def test_shuffled_texts_are_read_and_written_again():
    text = list(range(10, 22))
    config = CONFIG.replace(length=10, shuffled=0.5)
    rows = [config.make(lambda _: text)({"text": ""}, np.random.default_rng(seed)) for seed in range(200)]
    pairs = [(row["ids"][row["mask"]].tolist(), row["targets"][row["target_mask"]].tolist()) for row in rows]
    shuffled = [read for read, written in pairs if read == written]
    assert 70 < len(shuffled) < 130
    for read in shuffled:
        assert (
            read[-1] == 2 and len(read) == 10 and sorted(read[:-1]) == list(range(min(read[:-1]), min(read[:-1]) + 9))
        )
    assert len({tuple(read) for read in shuffled}) == len(shuffled) and len({row["targets"].shape for row in rows}) == 1
    assert all(100 in read for read, written in pairs if read != written)


def test_the_share_and_the_mean_span_are_those_of_the_paper():
    config = SpanCorruptionConfig(length=513, first_sentinel=0, eos=0)
    assert config.hidden(512) == (77, 26) and config.written == 104
    rng = np.random.default_rng(0)
    masks = np.stack([spans_to_hide(512, 77, 26, rng) for _ in range(200)])
    starts = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (masks.sum(1) == 77).all() and (starts.sum(1) == 26).all()
    assert masks[:, :256].mean() == pytest.approx(0.15, abs=0.01), "everywhere alike"
    assert len(np.unique(masks, axis=0)) == 200


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"share": 1.0}, "share"),
        ({"mean_span": 0.5}, "mean_span"),
        ({"length": 2}, "length"),
        ({"sentinels": 1}, "2 "),
        ({"shuffled": 2.0}, "shuffled"),
    ],
)
def test_settings_without_meaning_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CONFIG.replace(**changes)
