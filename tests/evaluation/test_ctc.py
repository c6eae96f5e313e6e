"""What a CTC encoder reads, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.data.examples.transcribed_speech import TranscribedSpeechConfig
from slm_jax.encoders.ssl_ctc import CTCEncoderConfig
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.objectives.ctc import ctc_nll
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

EXAMPLE = TranscribedSpeechConfig(samples=8000, labels=12)
TEXTS = ("ab c", "Hello!", "it's you")


@pytest.fixture(scope="module")
def items():
    rng = np.random.default_rng(0)
    return [
        {"samples": (0.1 * rng.standard_normal(8000 - 900 * i)).astype(np.float32), "text": text}
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def reader():
    model = CTCEncoderConfig(encoder=ENCODERS["log_mel"], classes=EXAMPLE.classes).make()
    params = random_params(model, jax.random.key(0), jnp.zeros((1, 8000)))
    return CTCReader(model, {"params": params}, EXAMPLE, rows=2)


def logits_of(reader, item):
    """Logits [T, V] of one item alone."""
    logits, _ = jax.jit(reader.model.apply)(reader.variables, jnp.asarray(item["samples"])[None])
    return np.asarray(logits[0])


def test_texts_are_the_best_classes_without_repetitions_and_blanks(reader, items):
    read = reader.texts(items)
    for item, text in zip(items, read, strict=True):
        best = logits_of(reader, item).argmax(-1)
        kept = best[(best != 0) & (np.diff(best, prepend=-1) != 0)]
        assert text == EXAMPLE.text_of(kept)
    assert len(set(read)) == 3 and all(read)


def test_figures_are_over_all_items(reader, items):
    figures = reader.figures(items)
    nats = [
        float(ctc_nll(jnp.asarray(logits_of(reader, one))[None], jnp.ones((1, len(logits_of(reader, one))), bool),
                      jnp.asarray(EXAMPLE.labels_of(one["text"]))[None],
                      jnp.ones((1, len(EXAMPLE.labels_of(one["text"]))), bool))[0])
        for one in items
    ]  # fmt: skip
    assert figures["nats_per_character"] == pytest.approx(sum(nats) / (4 + 5 + 8), rel=1e-4)
    assert figures["character_error_rate"] > 0.5
    assert reader.figures([]) == {"nats_per_character": 0.0, "character_error_rate": 0.0}


def test_words_stand_in_order_and_move_with_the_sound(reader, items):
    times = reader.times(items)
    assert [one.words for one in times] == [("ab", "c"), ("hello",), ("it's", "you")]
    for one, item in zip(times, items, strict=True):
        edges = np.stack([one.start_s, one.end_s], axis=1).ravel()
        assert (np.diff(edges) >= 0).all() and edges[0] >= 0 and edges[-1] <= len(item["samples"]) / 16_000
        np.testing.assert_allclose((edges - 0.0025) / 0.02, np.round((edges - 0.0025) / 0.02), atol=1e-3)


def test_a_text_that_does_not_fit_has_no_times(reader):
    short = {"samples": np.zeros(1000, np.float32), "text": "aaaaa"}  # two frames
    assert reader.times([short]) == [None]
