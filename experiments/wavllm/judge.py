"""What WavLLM's twin answers, task by task, beside the same with other speech, and with LoRA left as it is.

    python experiments/wavllm/judge.py runs/wavllm_real

Three arms on held-out items: after stage 1, after stage 2, and after stage 2 without its prompt adapter (every factor
is 1). Also what the prompt adapter says of each instruction. Leaves `real.json` beside this file, or in `--out`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.prompt_scaled import ASKED_IDS, ASKED_MASK, row_factors
from slm_jax.core.messages import Message, Text
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAModel
from slm_jax.serving.speech_aware import SpeechAwareSystem
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig
from slm_jax.systems.speech_aware import wavllm
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, judging_context, read_run_config

ASKS = (
    *wavllm.TRANSCRIPTION.asks,
    *wavllm.LOUDNESS.asks,
    *wavllm.RATE.asks,
    "Write down what is said. Then: How loud is it? Then: How fast is it?",
)


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=40, help="held-out items of each task")
    return parser.parse_args()


def unscaled(system: SpeechAwareSystem) -> SpeechAwareSystem:
    """The same without its prompt adapter: LoRA counts as in stage 1."""
    config = system.model.config.replace(prompt_scale=None)
    assert isinstance(system.model, LoRAModel)  # for the type checker
    model = dataclasses.replace(system.model, model=config.make())
    params = {name: tree for name, tree in system.variables["params"].items() if name != "prompt_scale"}
    return dataclasses.replace(system, model=model, variables={**system.variables, "params": params})


def factors(system: SpeechAwareSystem) -> dict[str, dict[str, float]]:
    """Mean, spread and share of zeros of the factors of each instruction."""
    found = {}
    for ask in ASKS:
        ids = system.layout.asked((Message("user", (Text(ask),)),))[None]
        batch = {ASKED_IDS: jnp.asarray(ids), ASKED_MASK: jnp.ones(ids.shape, bool)}
        one = np.asarray(next(iter(row_factors(system.model, system.variables, batch).values())))
        found[ask] = {"mean": float(one.mean()), "std": float(one.std()), "zeros": float((one == 0).mean())}
    return found


def judged(system: Any, config: SpeechAwareConfig, tasks: Any, context: StageContext, count: int) -> dict[str, Any]:
    """Every task, put to a system."""
    judge = TasksJudge(tasks=tasks, longest_s=config.answering.clip_s)
    return judge.judge(system, context, JudgeSettings(utterances=count)).figures[judge.name]


def main() -> None:
    """Judge three arms, write."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    assert isinstance(config, SpeechAwareConfig)  # for the type checker
    context = judging_context(config, run, asked.data_dir, say=print)
    last = config.load(context)
    first = config.replace(answers=wavllm.FIRST).load(context)
    arms = {
        "tasks": judged(last, config, wavllm.MIXED, context, asked.utterances),
        "without the prompt adapter": judged(unscaled(last), config, wavllm.MIXED, context, asked.utterances),
        "after stage 1": judged(first, config, wavllm.MIXED, context, asked.utterances),
    }
    found = {**arms, "factors": factors(last)}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "real.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({arm: {task: one["exact"] for task, one in tasks.items()} for arm, tasks in arms.items()}))


if __name__ == "__main__":
    main()
