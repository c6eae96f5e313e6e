"""Pitch and style beside units: sorted by time, carried on for the voice, heard in it."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Speech, spoken
from slm_jax.layouts.by_time import Timed, sorted_by_time
from tests.serving.drawn_expressive import drawn_expressive, swelling
from tests.serving.drawn_one_stream import drawn_spirit_lm

CLIP = swelling(2.5)


@pytest.fixture(scope="module")
def system():
    return drawn_expressive()


def test_a_clip_is_heard_as_three_streams_by_time_and_given_back_unit_by_unit(system):
    ids = system.heard(Speech(CLIP, 16_000))
    columns = []
    for tokenizer in system.tokenizers:
        (made,) = tokenizer.encode_all([CLIP])
        columns.append(np.asarray(made[tokenizer.spec.columns[0]] if isinstance(made, dict) else made))
    units, pitch, style = columns
    rates = [one.rate for one in system.stream.streams]
    which, own = sorted_by_time(
        [Timed(style, rates[2]), Timed(pitch, rates[1], once=True), Timed(units, rates[0], once=True)]
    )
    names = [("style", "pitch", "units")[kind] for kind in which]
    place_of = system.stream.tokens.vocabulary.encode_range
    wanted = [int(place_of(name, np.array([one]))[0]) for name, one in zip(names, own, strict=True)]
    assert ids.tolist() == wanted and set(names) == {"style", "pitch", "units"}
    found = system.stream.voiced(ids)
    first = np.flatnonzero(np.append(True, units[1:] != units[:-1]))
    np.testing.assert_array_equal(found["units"], units[first])
    for name, own, rate in (("pitch", pitch, rates[1]), ("style", style, rates[2])):
        held = np.minimum((first / rates[0] * rate + 1e-9).astype(int), len(own) - 1)
        np.testing.assert_array_equal(found[name], own[held])
    assert len(set(pitch)) > 1 and len(set(style)) > 1


def test_the_voice_speaks_the_manner(system):
    ids = system.heard(Speech(CLIP, 16_000))
    _, styled = system.stream.tokens.vocabulary.decode_range("style", ids)
    other = np.where(styled, system.stream.tokens.vocabulary.encode_range("style", np.array([1])), ids)
    plain, changed = system.spoken([ids])[0], system.spoken([other.astype(np.int32)])[0]
    assert np.isfinite(plain).all() and len(plain) > 1000
    same = len(plain) == len(changed) and np.allclose(plain, changed)
    assert same == bool((ids == other).all())


def test_it_answers_with_all_three_kinds(system):
    (reply,) = system.respond([spoken(CLIP, 16_000)], system.decoding.replace(max_new=48), jax.random.key(1))
    assert reply.trace["form"] == "go_on" and np.isfinite(reply.messages[0].speech[0].samples).all()
    assert set(system.stream.voiced(reply.trace["ids"])) == {"units", "pitch", "style"}


def test_a_voice_that_reads_what_nobody_writes_is_refused(system):
    with pytest.raises(UserError, match="the vocoder reads tokens of pitch, style too"):
        dataclasses.replace(system, stream=drawn_spirit_lm().stream)
