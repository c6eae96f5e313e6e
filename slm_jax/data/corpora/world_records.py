"""Records of the world: the speech of a plan (`world_plans`), with all that is known of it."""

import dataclasses
import json
from typing import Any

import numpy as np

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn
from slm_jax.data.corpora.settings import STYLE_FIELDS, STYLES, WorldConfig
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import spoken_words
from slm_jax.data.corpora.world_instructions import instructions
from slm_jax.data.corpora.world_manner import levelled, registered
from slm_jax.data.corpora.world_mix import Placed, mixed, place, spans_s, with_remarks
from slm_jax.data.corpora.world_plans import Job, number_of
from slm_jax.data.corpora.world_turns import heard_at_once, turn_messages
from slm_jax.data.corpora.world_voice import Speaker, Speech, make_speakers, the_voice


def make_records(job: Job) -> list[dict[str, Any]]:
    """The speech of one part, as records."""
    config = from_json(json.loads(job.settings))
    if not isinstance(config, WorldConfig):
        raise UserError(f"world settings are a {type(config).__name__}: they must be a WorldConfig")
    speakers = make_speakers(config.speakers, config.seed)
    return [make_record(plan, config, speakers) for plan in job.plans]


def make_record(plan: dict[str, Any], config: WorldConfig, speakers: tuple[Speaker, ...]) -> dict[str, Any]:
    """One record: its turns are spoken one by one and laid out in time; an instruction is a clip on one channel."""
    scene = _Scene(plan, config, speakers)
    placed = scene.placed()
    arrays = mixed(placed, config.channels)
    turns = [scene.turn(one, *span) for one, span in zip(placed, spans_s(placed), strict=True)]
    text = " ".join(turn["text"] for turn in turns)
    question = plan["kind"] == "question_answer"
    record = {
        "id": plan["id"],
        "kind": plan["kind"],
        "split": plan["split"],
        "group": plan["group"],
        "text": text,
        "speaker": turns[0]["speaker"],
        "speed": scene.speed(0),
        "seconds": len(arrays["samples"]) / config.rate_hz,
        "words": " ".join(spoken_words(text)),
        "question": turns[0]["text"] if question else "",
        "answer": turns[-1]["text"] if question else "",
        "task": "",
        **_style_fields(turns[0]),
        **arrays,
    }
    messages = turn_messages(turns)
    if scene.is_clip:
        record, messages = _asked(record, turns, config)
    stored = [message.to_json() for message in messages]
    return record | {"turns": json.dumps(turns), "messages": json.dumps(stored)}


@dataclasses.dataclass(frozen=True)
class _Scene:
    """A plan with those who speak it."""

    plan: dict[str, Any]
    config: WorldConfig
    speakers: tuple[Speaker, ...]

    @property
    def is_clip(self) -> bool:
        """Is it played as a whole, on one channel?"""
        return self.plan["kind"] == "instruction"

    def speed(self, turn: int) -> float:
        """The speed of a turn: that of its style, or the record's."""
        return self.plan["styles"][turn].get("speed", self.plan["speed"])

    def speaker(self, voice: int) -> Speaker:
        """Whose voice it is."""
        return self.speakers[{voice: who for voice, who, *_ in self.plan["turns"]}[voice]]

    def placed(self) -> list[Placed]:
        """The turns and the listeners' remarks, spoken and in time."""
        channels = 1 if self.is_clip else self.config.channels
        turns = self.plan["turns"]
        voices = [voice for voice, *_ in turns]
        spoken = [self._say(text, voice, i) for i, (voice, _, text, _) in enumerate(turns)]
        remarks = [(i, at, self._say(text, 1 - voices[i], i, 1)) for i, at, text in self.plan["remarks"]]
        return with_remarks(place(spoken, self.plan["gaps"], voices, channels), remarks, channels)

    def _say(self, text: str, voice: int, turn: int, *more_seed: int) -> Speech:
        """One turn in its style; a remark has the style of the turn in which it is heard."""
        style = self.plan["styles"][turn]
        seed = [self.config.seed, number_of(self.plan["id"]), turn, *more_seed]
        speaker, rate_hz = registered(self.speaker(voice), style), self.config.rate_hz
        return levelled(
            the_voice().speak(text, speed=self.speed(turn), speaker=speaker, seed=seed, rate_hz=rate_hz), style
        )

    def turn(self, one: Placed, start_s: float, end_s: float) -> dict[str, Any]:
        """What is known of a turn, as JSON."""
        speaker, style = self.speaker(one.voice), self.plan["styles"][one.turn]
        known = {
            "speaker": speaker.name,
            "text": one.text,
            "answer": None if one.is_remark else self.plan["turns"][one.turn][-1],
            "start_s": start_s,
            "end_s": end_s,
            "voice": one.voice,
            "channel": one.channel,
        }
        marks: dict[str, Any] = {"sound": speaker.sound} if speaker.sound else {}
        if one.is_remark:
            marks["backchannel"] = True
        labels = {field: style[name] for field, name in zip(STYLE_FIELDS, STYLES, strict=True) if name in style}
        return known | marks | labels


def _style_fields(turn: dict[str, Any]) -> dict[str, str]:
    """The labels of the first turn, empty where none was drawn."""
    return {field: turn.get(field, "") for field in STYLE_FIELDS}


def _asked(
    record: dict[str, Any], turns: list[dict[str, Any]], config: WorldConfig
) -> tuple[dict[str, Any], tuple[Turn, ...]]:
    """The record with one of the instructions that fit it, drawn for its id, and its messages."""
    rng, names_known = np.random.default_rng([config.seed, 5, number_of(record["id"])]), config.split_by != "speaker"
    pool = instructions({"turns": turns}, rng, world=make_world(config.seed), names_known=names_known)
    task, asked, reply = pool[int(rng.integers(len(pool)))]
    written = {"task": task, "question": asked.text, "answer": reply.text}
    return record | written, (*heard_at_once(turns, record["seconds"]), asked, reply)
