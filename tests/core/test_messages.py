"""Messages and turns."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, Turn, conversation, spoken

HEARD = Turn("user", "hello", channel=1, start_s=0.5, end_s=1.0, speaker="a")


def test_turns_survive_json():
    for turn in (HEARD, Turn("assistant", "two", answer="two"), Turn("user", start_s=0.0, end_s=0.1)):
        assert Turn.from_json(turn.to_json()) == turn


def test_a_conversation_cuts_each_turn_out_of_its_channel():
    samples = np.stack([np.zeros(32), np.arange(32.0)], axis=1).astype(np.float32)
    made = conversation((Turn("user", "What is said?"), HEARD, Turn("assistant", "hello")), samples, 32)
    assert [message.role for message in made] == ["user", "assistant"]
    assert made[0].text == "What is said?" and made[0].kinds == {"speech", "text"}
    np.testing.assert_array_equal(made[0].speech[0].samples, np.arange(16, 32))
    assert made[1] == Message("assistant", (Text("hello"),))


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: Message("robot", (Text("a"),)), "robot"),
        (lambda: Message("user", ()), "holds something"),
        (lambda: Turn("user", "a", start_s=1.0), "both or neither"),
        (lambda: Turn("user", "a", start_s=2.0, end_s=1.0), "end_s = 1.0"),
        (lambda: Turn("user"), "heard, written or both"),
        (lambda: Turn.from_json({"role": "user", "text": "a", "tone": "b"}), "tone"),
        (lambda: Turn.from_json({"role": "user", "text": 3}), "another type"),
        (lambda: Speech(np.zeros(4, np.float32), 0), "rate_hz"),
        (lambda: spoken(np.zeros(4, np.int16), 16_000), "(?i)float"),
        (lambda: Speech([0.0, 0.1], 16_000), "(?i)numpy|ndarray"),
    ],
)
def test_what_makes_no_sense_is_refused(make, word):
    with pytest.raises((UserError, TypeCheckError), match=word):
        make()
