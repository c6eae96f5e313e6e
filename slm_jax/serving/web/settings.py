"""The session object: what a client is told, and what of it may be changed."""

from typing import Any

from slm_jax.serving.web.events import Refused
from slm_jax.serving.web.sound import RATE_HZ

PCM = {"type": "audio/pcm", "rate": RATE_HZ}
UNCHANGED = ("type", "object", "id", "model")
"""Fields that may be sent back as they came."""


class SessionSettings:
    """Settings of one client. `writes`: what the system gives; `about`: what only this server tells."""

    def __init__(self, name: str, model: str, writes: frozenset[str], about: dict[str, Any]) -> None:
        self._fixed = {"type": "realtime", "object": "realtime.session", "id": name, "model": model}
        self._possible = [form for form, what in (("audio", "speech"), ("text", "text")) if what in writes]
        self._about = about
        self.form = self._possible[0]
        """`audio` (with its words, where there are any) or `text` alone."""

    def as_json(self) -> dict[str, Any]:
        """The object that `session.created` and `session.updated` hold."""
        heard = {"format": PCM, "turn_detection": None, "transcription": None, "noise_reduction": None}
        return {
            **self._fixed,
            "output_modalities": [self.form],
            "audio": {"input": heard, "output": {"format": PCM}},
            "slm_jax": self._about,
        }

    def update(self, change: Any) -> None:
        """Take over what a client wants; raises `Refused` for what there is not, and then changes nothing."""
        if not isinstance(change, dict):
            raise Refused("invalid_value", "session is no object", "session")
        form = self.form
        for name, value in change.items():
            if name == "output_modalities":
                form = self._wanted_form(value)
            elif name == "audio":
                _check_audio(value)
            elif value is not None and not (name in UNCHANGED and value == self._fixed[name]):
                raise Refused("unsupported_field", f"session.{name} cannot be set here", f"session.{name}")
        self.form = form

    def _wanted_form(self, value: Any) -> str:
        if value not in [[form] for form in self._possible]:
            possible = " or ".join(f'["{form}"]' for form in self._possible)
            message = f"output_modalities is {value!r}: this system has {possible}"
            raise Refused("invalid_value", message, "session.output_modalities")
        return value[0]


def _check_audio(audio: Any) -> None:
    """Sound is 16-bit PCM at 24 kHz both ways, and nobody listens for ends of turns."""
    for side in ("input", "output"):
        fields = (audio.get(side) if isinstance(audio, dict) else None) or {}
        if not isinstance(fields, dict):
            raise Refused("invalid_value", f"audio.{side} is no object", f"session.audio.{side}")
        for name, value in fields.items():
            param = f"session.audio.{side}.{name}"
            if name == "format":
                _check_format(value, param)
            elif value is not None:
                raise Refused("unsupported_field", f"{param} cannot be set here: only null", param)


def _check_format(value: Any, param: str) -> None:
    if not isinstance(value, dict) or {**PCM, **value} != PCM:
        raise Refused("invalid_value", f"{param} is {value!r}: sound is audio/pcm at {RATE_HZ} Hz", param)
