"""Metrics as data: what each needs and which way is better. Headings of tables take their arrows from here.

METRICS["vert"].higher_is_better                       # False
heading("gen_ppl")                                     # "GenPPL ↓"
[name for name, one in METRICS.items() if not one.needs_reference]
"""

from typing import NamedTuple

from slm_jax.core.errors import nearest, require

UP, DOWN = "↑", "↓"


class Metric(NamedTuple):
    """`title`: as tables head it. `higher_is_better`: None where neither end is: one looks how near real speech it is.

    `needs_reference`: the one right sound, text or phone labels to compare with. `needs_text`: it reads words, so that
    of speech there must be a transcript.
    """

    title: str
    higher_is_better: bool | None
    needs_reference: bool
    needs_text: bool
    says: str


METRICS: dict[str, Metric] = {
    "abx_within": Metric("ABX within", False, True, False, "A and B of one speaker: how often X is nearer to B"),
    "abx_across": Metric("ABX across", False, True, False, "the same with X from another speaker"),
    "pnmi": Metric("PNMI", True, True, False, "share of uncertainty about the phone that the unit removes"),
    "phone_purity": Metric("phone purity", True, True, False, "a unit read as its most frequent phone is right"),
    "cluster_purity": Metric("cluster purity", True, True, False, "a phone read as its most frequent unit is right"),
    "bitrate": Metric("bit/s", False, False, False, "entropy of a unit times units per second"),
    "run_bitrate": Metric("bit/s without repetitions", False, False, False, "the same of deduplicated units"),
    "pair_accuracy": Metric("accuracy", True, True, False, "the right one of two is found likelier"),
    "gen_ppl": Metric("GenPPL", False, False, True, "exp of the mean over texts of nats per token"),
    "ppx": Metric("PPX", False, False, True, "mean over texts of exp of nats per token"),
    "auto_bleu": Metric("auto-BLEU", False, False, True, "words and pairs that an utterance repeats"),
    "repeated_bigrams": Metric("auto-BLEU-2", False, False, True, "pairs of words that an utterance repeats"),
    "self_bleu": Metric("self-BLEU", False, False, True, "BLEU-2 of an utterance against all others"),
    "vert": Metric("VERT", False, False, True, "geometric mean of self-BLEU-2 and auto-BLEU-2"),
    "wer": Metric("WER", False, True, True, "word errors per word of the reference"),
    "cer": Metric("CER", False, True, True, "character errors per character of the reference"),
    "error_rate": Metric("error rate", False, True, True, "errors per word or character of the reference"),
    "bleu": Metric("BLEU", True, True, True, "n-grams shared with a translation, 0 to 100"),
    "chrf": Metric("chrF", True, True, True, "character n-grams shared with a translation, 0 to 100"),
    "exact": Metric("exact", True, True, True, "the answer is the expected one"),
    "f1": Metric("F1", True, True, True, "words shared with the expected answer"),
    "contains": Metric("contains", True, True, True, "the reply has all words of the expected answer"),
    "holds": Metric("holds", True, True, True, "the reply has the word that a right answer holds"),
    "first_word": Metric("first word", True, True, True, "the first word is the real next one"),
    "nats_per_token": Metric("nats per token", False, False, True, "mean surprise of a token"),
    "perplexity": Metric("perplexity", False, False, True, "exp of nats per token"),
    "nats_per_word": Metric("nats per word", False, False, True, "mean surprise of a word"),
    "stoi": Metric("STOI", True, True, False, "intelligibility, 0 to 1"),
    "pesq": Metric("PESQ", True, True, False, "quality as heard, 1 to 4.6"),
    "si_sdr": Metric("SI-SDR", True, True, False, "signal to distortion, dB"),
    "log_mel_distance": Metric("log mel distance", False, True, False, "mean difference of log mels, nats"),
    "voicing_error": Metric("voicing error", False, True, False, "frames where voicing differs"),
    "f0_error_cents": Metric("F0 error, cents", False, True, False, "median difference of F0"),
    "gross_f0_error": Metric("gross F0 error", False, True, False, "voiced frames that are off by over 20 %"),
    "voiced_share": Metric("voiced share", None, False, False, "frames with a pitch"),
    "speaker_accuracy": Metric("right speaker", True, True, False, "of some speakers the right one is nearest"),
    "speaker_similarity": Metric("speaker similarity", True, True, False, "cosine of two speakers' vectors, up to 1"),
    "real_time_factor": Metric("real time factor", False, False, False, "seconds of work per second of sound"),
}


def heading(name: str) -> str:
    """The title of a metric with an arrow where a direction is better; raises `UserError` for an unknown name."""
    require(name in METRICS, "metric", name, f"not known{nearest(name, METRICS)}; see METRICS")
    title, higher = METRICS[name].title, METRICS[name].higher_is_better
    return title if higher is None else f"{title} {UP if higher else DOWN}"


def marked(cell: str) -> str:
    """A heading as judges write it ("log mel distance", "stoi", "PNMI") with its arrow; any other as it is."""
    higher = _DIRECTIONS.get(_plain(cell))
    return cell if higher is None else f"{cell} {UP if higher else DOWN}"


def _plain(text: str) -> str:
    return text.lower().replace("_", " ").strip()


_DIRECTIONS = {
    _plain(spelling): one.higher_is_better for name, one in METRICS.items() for spelling in (name, one.title)
}
