import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.examples.masked_speech import MaskedSpeechConfig, mask_spans

HOP, FIELD = 320, 400


def utterance(frames: int, extra: int = 0) -> dict:
    """Samples that name their own position (modulo 2**15), labels that name their own frame."""
    count = (frames - 1) * HOP + FIELD + extra
    return {"samples": (np.arange(count) % 2**15).astype(np.int16), "labels": np.arange(frames) + 1}


def test_crops_keep_labels_in_step_with_samples():
    example_fn = MaskedSpeechConfig(crop_samples=16_000).make()
    starts = set()
    for seed in range(60):
        example = example_fn(utterance(180, extra=77), np.random.default_rng(seed))
        assert {name: (value.shape, value.dtype.name) for name, value in example.items()} == {
            "samples": ((16_000,), "float32"),
            "sample_mask": ((16_000,), "bool"),
            "labels": ((49,), "int32"),
            "label_mask": ((49,), "bool"),
            "span_mask": ((49,), "bool"),
        }
        first = int(example["labels"][0]) - 1
        np.testing.assert_array_equal(example["labels"], np.arange(49) + 1 + first)
        positions = np.arange(16_000) + first * HOP
        np.testing.assert_array_equal(example["samples"], (positions % 2**15).astype(np.float32) / 32768)
        assert example["sample_mask"].all()
        assert example["label_mask"].all()
        starts.add(first)
    assert len(starts) > 25
    assert min(starts) < 10
    assert max(starts) > 120


def test_short_utterances_are_padded_and_only_real_frames_are_hidden():
    example_fn = MaskedSpeechConfig(crop_samples=16_000, mask_span=4).make()
    for seed in range(20):
        example = example_fn(utterance(20), np.random.default_rng(seed))
        np.testing.assert_array_equal(example["sample_mask"], np.arange(16_000) < 19 * HOP + FIELD)
        np.testing.assert_array_equal(example["label_mask"], np.arange(49) < 20)
        np.testing.assert_array_equal(example["labels"][:20], np.arange(20) + 1)
        assert not example["labels"][20:].any()
        assert not example["samples"][~example["sample_mask"]].any()
        assert example["span_mask"][:20].any()
        assert not example["span_mask"][20:].any()


def test_of_labels_twice_as_often_as_frames_every_second_is_taken():
    grid = (*MaskedSpeechConfig(crop_samples=16_000).kernels_and_strides, (2, 2))
    example_fn = MaskedSpeechConfig(crop_samples=16_000, kernels_and_strides=grid, labels_per_frame=2).make()
    for seed in range(20):
        example = example_fn(utterance(180), np.random.default_rng(seed))
        first = int(example["labels"][0]) - 1
        assert first % 2 == 0
        np.testing.assert_array_equal(example["labels"], np.arange(24) * 2 + 1 + first)
        assert example["samples"][0] * 32768 == (first * HOP) % 2**15
        assert example["label_mask"].all()


def test_labels_of_another_count_are_masked_or_dropped():
    item = utterance(49)
    example_fn = MaskedSpeechConfig(crop_samples=16_000).make()
    shorter = example_fn(item | {"labels": item["labels"][:-2]}, np.random.default_rng(0))
    np.testing.assert_array_equal(shorter["label_mask"], np.arange(49) < 47)
    longer = example_fn(item | {"labels": np.arange(60) + 1}, np.random.default_rng(0))
    np.testing.assert_array_equal(longer["labels"], np.arange(49) + 1)


def test_utterance_below_one_frame_gives_no_frame():
    item = {"samples": np.ones(100, np.int16), "labels": np.zeros(0, np.int32)}
    example = MaskedSpeechConfig(crop_samples=16_000).make()(item, np.random.default_rng(0))
    assert not example["label_mask"].any()
    assert not example["span_mask"].any()
    assert example["sample_mask"].sum() == 100


@pytest.mark.parametrize("share, span, expected", [(0.65, 10, 0.49), (0.8, 10, 0.56), (0.5, 5, 0.40)])
def test_hidden_share_is_that_of_overlapping_spans(share, span, expected):
    """1 - exp(-share) for many short spans, less at the ends; wav2vec 2.0 reports about 49 % for .65 and 10."""
    rng = np.random.default_rng(0)
    masks = np.stack([mask_spans(500, rng, share=share, span=span) for _ in range(400)])
    assert abs(masks.mean() - expected) < 0.02
    interior = masks.mean(0)[50:-50]
    assert interior.std() < 0.06  # no place is favoured


def test_runs_are_at_least_a_span_long():
    rng = np.random.default_rng(1)
    for _ in range(100):
        mask = np.concatenate([[False], mask_spans(80, rng, share=0.4, span=7), [False]])
        edges = np.flatnonzero(np.diff(mask.astype(int)))
        assert (edges[1::2] - edges[::2] >= 7).all()


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 5, 11, 30])
def test_short_rows(frames):
    rng = np.random.default_rng(2)
    for _ in range(50):
        mask = mask_spans(frames, rng, share=1.0, span=10, min_spans=2)
        assert mask.shape == (frames,)
        assert not mask.all() or frames == 0
        assert mask.any() == (frames >= 2)


def test_minimum_number_of_spans():
    rng = np.random.default_rng(3)
    assert all(mask_spans(100, rng, share=0.01, span=10, min_spans=2).sum() > 10 for _ in range(50))
    assert not mask_spans(100, rng, share=0.0, span=10, min_spans=2).any()


@pytest.mark.parametrize(
    "field, value", [("crop_samples", 399), ("mask_share", 1.1), ("mask_span", 0), ("min_spans", -1)]
)
def test_config_checks_its_fields(field, value):
    with pytest.raises(UserError, match=field):
        MaskedSpeechConfig(crop_samples=16_000).replace(**{field: value})
