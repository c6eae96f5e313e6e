"""Kinds of models that `parity` knows: rows cut by their own masks, and a description for every family."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.references import builders
from slm_jax.workbench.comparable import inputs_alone, noise
from slm_jax.workbench.comparables import COMPARABLES, comparable_of
from tests.shapes import DECODER, WHISPER


def test_each_input_is_cut_by_its_own_mask_or_by_that_of_all():
    inputs = {
        "samples": np.arange(10).reshape(2, 5),
        "mask": np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], bool),
        "ids": np.arange(6).reshape(2, 3),
        "ids_mask": np.array([[0, 1, 1], [1, 1, 0]], bool),
        "speaker": np.array([7, 8]),
    }
    first, second = inputs_alone(inputs)
    assert {name: value.tolist() for name, value in first.items() if value is not None} == {
        "samples": [[0, 1, 2, 3]],
        "ids": [[1, 2]],
        "speaker": [7],
    }
    assert (second["samples"].tolist(), second["ids"].tolist()) == ([[5]], [[3, 4]])
    assert first["mask"] is None and first["ids_mask"] is None


def test_noise_stops_where_a_row_ends():
    made = noise(np.random.default_rng(0), [6, 2])
    assert made["mask"].sum(1).tolist() == [6, 2]
    assert made["samples"].dtype == np.float32 and (made["samples"] != 0).tolist() == made["mask"].tolist()


def test_every_family_with_a_reference_is_described():
    assert {FAMILIES[name].config_type for name in builders()} == set(COMPARABLES)


def test_a_kind_that_nobody_described_is_named():
    with pytest.raises(UserError, match="a LogMelConfig has no description for `parity`: DecoderConfig, MelVocoder"):
        comparable_of(SSLEncoderConfig().mel)


@pytest.mark.parametrize("config", [DECODER, WHISPER, SSLEncoderConfig()], ids=lambda config: type(config).__name__)
def test_cases_begin_with_whole_rows_and_one_reads_each_row_alone(config):
    first, *others = comparable_of(config).cases(config, np.random.default_rng(0), True)
    assert first.name.startswith("plain") and all(mask.all() for name, mask in first.inputs.items() if "mask" in name)
    assert not first.changes and any(case.alone for case in others)
    assert any(not case.inputs["mask"].all() for case in others)
