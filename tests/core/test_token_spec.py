"""What a tokenizer says of itself."""

import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec, single

UNITS = single("units", 100, 320, 16_000, columns=("units",), runs=("runs",), durations="durations")


def test_it_survives_json_and_says_what_it_is():
    assert from_json(UNITS.to_json()) == UNITS
    assert UNITS.units == 100 and UNITS.frames_per_second == 50
    assert UNITS.describe() == "units 100; every 320 samples at 16,000 Hz"


def test_one_stream_is_not_taken_for_several():
    books = (Codebook(name="units", size=100), Codebook(name="log_f0", size=0))
    prosody = TokenSpec(codebooks=books, hop=320, rate_hz=16_000, columns=("units", "log_f0"))
    assert prosody.sizes == (100, 0)
    with pytest.raises(UserError, match="log_f0"):
        prosody.units  # noqa: B018
    with pytest.raises(UserError, match=r"units 100, log_f0 real.*made for units 100;"):
        UNITS.require_same(prosody, "tokens")


@pytest.mark.parametrize("changes", [{"columns": ("a", "b")}, {"durations": None}, {"hop": 0}, {"codebooks": ()}])
def test_what_does_not_fit_is_refused(changes):
    with pytest.raises(UserError):
        UNITS.replace(**changes)
