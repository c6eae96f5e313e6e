"""Held-out items as the tasks of a run ask of them."""

from slm_jax.core.messages import Conversation
from slm_jax.data.mixture import MixtureConfig
from slm_jax.judges.tasks import TasksJudge
from slm_jax.training.stages import StageContext


def held_out_questions(
    tasks: MixtureConfig, context: StageContext, count: int, rate_hz: int, longest_s: float | None = None
) -> dict[str, Conversation]:
    """`count` of them in all, by task and number, shared out evenly; clips of `longest_s` seconds at most."""
    judge, found = TasksJudge(tasks=tasks, longest_s=longest_s), dict[str, Conversation]()
    for place, part in enumerate(tasks.parts):
        share = count // len(tasks.parts) + (place < count % len(tasks.parts))
        asked = judge.asked(part, context, share, rate_hz) if share else []
        found |= {f"{part.name}_{i}": one.question.asked for i, one in enumerate(asked, start=1)}
    return found
