"""Turns of the world as messages, and items of its corpora as users see them."""

import json
from typing import Any

import numpy as np

from slm_jax.core.messages import Turn
from slm_jax.data.corpora.settings import STYLE_FIELDS
from slm_jax.data.corpora.world_phones import PHONES

SIDES = ("user", "assistant")
"""The roles of the first voice and of the second."""


def turn_messages(turns: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """Each turn as one that is heard: the first voice is the user's, the second the assistant's."""
    return tuple(
        Turn(
            role=SIDES[turn["voice"]],
            text=turn["text"],
            channel=turn["channel"],
            start_s=turn["start_s"],
            end_s=turn["end_s"],
            speaker=turn["speaker"],
            answer=turn["answer"],
        )
        for turn in turns
    )


def heard_at_once(turns: list[dict[str, Any]], seconds: float) -> tuple[Turn, ...]:
    """The whole clip as one turn of the user, who plays it: `speaker` is empty where several speak."""
    speakers = {turn["speaker"] for turn in turns}
    text = " ".join(turn["text"] for turn in turns)
    speaker = speakers.pop() if len(speakers) == 1 else ""
    return (Turn("user", text, start_s=0.0, end_s=seconds, speaker=speaker),)


def world_item(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored record of the world, its texts decoded, in the form that `Source` states."""
    item = dict(stored)
    item["phones"] = [PHONES[i] for i in item["phone_ids"]]
    item["words"], item["turns"] = item["words"].split(), json.loads(item["turns"])
    if "messages" not in item:
        return item | _of_earlier(item)
    return item | {"messages": tuple(Turn.from_json(turn) for turn in json.loads(item["messages"]))}


def _of_earlier(item: dict[str, Any]) -> dict[str, Any]:
    """What corpora made before there were messages lack; in them no two turns overlap and voices take turns."""
    turns = [turn | {"voice": i % 2, "channel": 0} for i, turn in enumerate(item["turns"])]
    starts = np.asarray([turn["start_s"] for turn in turns], np.float32)
    placed = {
        f"{name}_turn": (np.searchsorted(starts, item[f"{name}_start_s"], side="right") - 1).astype(np.int32)
        for name in ("phone", "word")
    }
    empty = dict.fromkeys(("task", *STYLE_FIELDS), "")
    return {"turns": turns, "messages": turn_messages(turns), **placed, **empty}
