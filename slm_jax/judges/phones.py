"""A phone classifier for the run's corpus, by which made-up speech is judged."""

from typing import Any

import jax
import numpy as np

from slm_jax.data.corpus import PHONES, RATE_HZ
from slm_jax.evaluation.phone_classifier import PhoneClassifier, PhoneClassifierConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.units import has_phones, true_phones
from slm_jax.training.held_out import speech_of, waveform
from slm_jax.training.stages import StageContext


def train_phone_classifier(context: StageContext, settings: JudgeSettings) -> tuple[PhoneClassifier, float] | None:
    """A classifier trained on true phones and its accuracy on the test split; None where there are no phones."""
    test, train = speech_of(context, "test"), speech_of(context, "train")
    if not has_phones(test) or not has_phones(train):
        return None
    taken = [labelled(train[i], context) for i in range(min(settings.phone_utterances, len(train)))]
    classifier = PhoneClassifierConfig(phones=len(PHONES)).make().fit(taken, jax.random.key(0))
    examples = [labelled(test[i], context) for i in range(min(settings.utterances, len(test)))]
    return classifier, classifier.accuracy(examples)


def labelled(item: dict[str, Any], context: StageContext) -> tuple[np.ndarray, np.ndarray]:
    """Samples at 16 kHz and the phone of each 20 ms frame."""
    samples = waveform(item, context, RATE_HZ)
    return samples, true_phones(item, len(samples) // 320)
