"""The language model against n-grams: nats per unit on held-out speech."""

from collections.abc import Mapping, Sequence

import numpy as np

from slm_jax.data.records import RecordSource
from slm_jax.evaluation.language_model import fit_ngram
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.pre.unit_lm import sequence_column
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

WORDS = "Nats per unit on held-out speech, the end of each utterance counted."


class LanguageModelJudge(JudgeConfig):
    """How well the model predicts units, beside n-grams that were counted on the same ones."""

    name: str = "language_model"

    def judge(self, system: UnitSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        tables = unit_tables(context, system.origin.units)
        if not tables["test"]:
            raise Lacking("the corpus has no held-out speech in its test split")
        figures = judge_language_model(system, tables)
        words = WORDS if tables["dev"] else f"{WORDS} Left out: n-grams, since there is no dev split to smooth them on."
        table = Table(list(figures), [list(figures.values())])
        return Section("Language model", words, {self.name: figures}, (table,))


def judge_language_model(system: UnitSpeechLM, tables: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float | None]:
    """Nats per unit (the end counted) on the test split: the model beside smoothed n-grams.

    `tables`: deduplicated units of the splits. The n-grams are counted on train and smoothed on dev; without dev they
    are None.
    """
    units = system.tokenizer.spec.units
    model = -np.concatenate(system.log_probs(tables["test"])).mean()
    figures: dict[str, float | None] = {"model": float(model)}
    for order, name in enumerate(("unigram", "bigram", "trigram"), start=1):
        figures[name] = None
        if tables["dev"]:
            ngram = fit_ngram(tables["train"], units, order, tune_on=tables["dev"], count_end=True)
            figures[name] = ngram.nats_per_unit(tables["test"])
    bigram = figures["bigram"]
    figures["under_bigram"] = None if bigram is None else bigram - float(model)
    return figures


def unit_tables(context: StageContext, stage: str) -> dict[str, list[np.ndarray]]:
    """Deduplicated units of every utterance, by split; none where the stage wrote no table of a split."""
    folder, tokens = context.finished(stage), token_stage(context, stage)
    column = sequence_column(tokens.spec(context))
    tables: dict[str, list[np.ndarray]] = {}
    for split in ("train", "dev", "test"):
        path = tokens.records(folder, split)
        source = RecordSource(path) if path.is_dir() else ()
        tables[split] = [source[i][column] for i in range(len(source))]
    return tables
