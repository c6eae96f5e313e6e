"""Records of the world: the speech of a plan (`world_plans`), with all that is known of it."""

import functools
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
from slm_jax.data.corpora.world_mix import Placed, mixed, place, with_remarks
from slm_jax.data.corpora.world_plans import Job, number_of
from slm_jax.data.corpora.world_turns import heard_at_once, turn_messages
from slm_jax.data.corpora.world_voice import Speaker, Speech, Voice, make_speakers


def make_records(job: Job) -> list[dict[str, Any]]:
    """The speech of one part, as records."""
    config = from_json(json.loads(job.settings))
    if not isinstance(config, WorldConfig):
        raise UserError(f"world settings are a {type(config).__name__}: they must be a WorldConfig")
    speakers = make_speakers(config.speakers, config.seed)
    return [make_record(plan, config, speakers) for plan in job.plans]


@functools.cache
def _voice() -> Voice:
    """One voice per process."""
    return Voice()


def make_record(plan: dict[str, Any], config: WorldConfig, speakers: tuple[Speaker, ...]) -> dict[str, Any]:
    """One record: its turns are spoken one by one and laid out in time; an instruction is a clip on one channel."""
    is_clip = plan["kind"] == "instruction"
    placed = _placed(plan, config, speakers, 1 if is_clip else config.channels)
    arrays = mixed(placed, config.channels)
    seconds = len(arrays["samples"]) / config.rate_hz
    turns = [_turn(one, plan, speakers) for one in placed]
    text = " ".join(turn["text"] for turn in turns)
    question = plan["kind"] == "question_answer"
    record = {
        "id": plan["id"],
        "kind": plan["kind"],
        "split": plan["split"],
        "text": text,
        "speaker": turns[0]["speaker"],
        "speed": plan["styles"][0].get("speed", plan["speed"]),
        "seconds": seconds,
        "words": " ".join(spoken_words(text)),
        "question": turns[0]["text"] if question else "",
        "answer": turns[-1]["text"] if question else "",
        "turns": json.dumps(turns),
        "task": "",
        **_style_fields(turns[0]),
        **arrays,
    }
    messages = heard_at_once(turns, seconds) if is_clip else turn_messages(turns)
    if is_clip:
        record, messages = _asked(record, turns, messages, config)
    return record | {"messages": json.dumps([message.to_json() for message in messages])}


def _placed(plan: dict[str, Any], config: WorldConfig, speakers: tuple[Speaker, ...], channels: int) -> list[Placed]:
    """The turns and remarks of a plan, spoken and in time."""
    number = number_of(plan["id"])
    say = functools.partial(_say, plan=plan, config=config, speakers=speakers)
    spoken = [say(text, speaker, i, seed=[number, i]) for i, (_, speaker, text, _) in enumerate(plan["turns"])]
    voices = [voice for voice, *_ in plan["turns"]]
    placed = place(spoken, plan["gaps"], voices, channels)
    who = {voice: speaker for voice, speaker, *_ in plan["turns"]}
    remarks = [
        (turn, where, say(text, who[1 - voices[turn]], turn, seed=[number, turn, 1]))
        for turn, where, text in plan["remarks"]
    ]
    return with_remarks(placed, remarks, channels)


def _say(
    text: str,
    who: int,
    turn: int,
    *,
    seed: list[int],
    plan: dict[str, Any],
    config: WorldConfig,
    speakers: tuple[Speaker, ...],
) -> Speech:
    """One turn in its style; a remark has the style of the turn it is heard in."""
    style = plan["styles"][turn]
    speed, speaker = style.get("speed", plan["speed"]), registered(speakers[who], style)
    seed = [config.seed, *seed]
    speech = _voice().speak(text, speed=speed, speaker=speaker, seed=seed, rate_hz=config.rate_hz)
    return levelled(speech, style)


def _turn(one: Placed, plan: dict[str, Any], speakers: tuple[Speaker, ...]) -> dict[str, Any]:
    """What is known of a turn, as JSON."""
    who = {voice: speaker for voice, speaker, *_ in plan["turns"]}[one.voice]
    _, _, _, answer = plan["turns"][one.turn]
    style = {field: plan["styles"][one.turn][name] for field, name in zip(STYLE_FIELDS, STYLES, strict=True)
             if name in plan["styles"][one.turn]}  # fmt: skip
    return {
        "speaker": speakers[who].name,
        "text": one.text,
        "answer": None if one.is_remark else answer,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "voice": one.voice,
        "channel": one.channel,
        **({"sound": speakers[who].sound} if speakers[who].sound else {}),
        **({"backchannel": True} if one.is_remark else {}),
        **style,
    }


def _style_fields(turn: dict[str, Any]) -> dict[str, str]:
    """The labels of the first turn, empty where none was drawn."""
    return {field: turn.get(field, "") for field in STYLE_FIELDS}


def _asked(
    record: dict[str, Any], turns: list[dict[str, Any]], heard: tuple[Turn, ...], config: WorldConfig
) -> tuple[dict[str, Any], tuple[Turn, ...]]:
    """The record with one of the instructions that fit it, drawn for its id, and all messages."""
    rng = np.random.default_rng([config.seed, 5, number_of(record["id"])])
    known = record | {"turns": turns}
    pool = instructions(known, rng, world=make_world(config.seed), names_known=config.split_by != "speaker")
    chosen = pool[int(rng.integers(len(pool)))]
    written = {"task": chosen.task, "question": chosen.asked.text, "answer": chosen.reply.text}
    return record | written, (*heard, chosen.asked, chosen.reply)
