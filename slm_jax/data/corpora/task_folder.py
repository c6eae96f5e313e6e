"""A folder of shards as a corpus."""

import json

from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath, absolute
from slm_jax.data.corpora.report import INDEX, REPORT, Report, describe
from slm_jax.data.corpora.settings import TaskCorpusConfig
from slm_jax.data.corpora.splits import SPLITS

CORPUS_FILE = "corpus.json"
"""Of a folder of shards that is a corpus: the rate of its items."""


def task_folder(config: TaskCorpusConfig) -> AnyPath:
    """The folder of a corpus of tasks; raises `UserError` where it is not finished, or has another rate."""
    folder = absolute(config.path)
    missing = [name for name in (REPORT, INDEX, CORPUS_FILE) if not (folder / name).is_file()]
    require(not missing, "tasks", config.path, f"has no {', '.join(missing)}: finish it with the command that made it")
    rate_hz = json.loads((folder / CORPUS_FILE).read_text())["rate_hz"]
    require(rate_hz == config.rate_hz, "rate_hz", config.rate_hz, f"the items of {config.path} are at {rate_hz} Hz")
    return folder


def told_of_tasks(config: TaskCorpusConfig) -> Report:
    """The report of a corpus of tasks."""
    folder = task_folder(config)
    index = json.loads((folder / INDEX).read_text())
    left = json.loads((folder / REPORT).read_text())["left"]
    columns = {split: index.get(split, {"id": [], "seconds": []}) for split in SPLITS}
    return Report(
        corpus=describe(config),
        folder=str(folder),
        accepted={split: len(one["id"]) for split, one in columns.items()},
        hours={split: sum(one["seconds"]) / 3600 for split, one in columns.items()},
        rejected=left,
        warnings={},
        seconds=0.0,
        cached=True,
    )
