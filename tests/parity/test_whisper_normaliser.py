"""Whisper's normaliser is the one that transformers has."""

import json
from importlib.resources import files

import pytest

from slm_jax.evaluation.transcription import normaliser

TEXTS = (
    "Mr. Brown's colour: twenty-one!",
    "It isn't (laughs) what we've ordered, is it?",
    "Three hundred and five dollars, and ten percent of 1,000.",
    "  um, the   théâtre opens at half past seven o'clock ",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
def test_english(text):
    module = pytest.importorskip("transformers.models.whisper.english_normalizer")
    spelling = json.loads((files("whisper_normalizer") / "normalizers" / "english.json").read_text())
    assert normaliser("en")(text).split() == module.EnglishTextNormalizer(spelling)(text).split()


@pytest.mark.parametrize("text", TEXTS)
def test_others(text):
    module = pytest.importorskip("transformers.models.whisper.english_normalizer")
    assert normaliser("cs")(text).split() == module.BasicTextNormalizer()(text).split()
