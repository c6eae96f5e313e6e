"""Reading a `config.json` without losing anything: every field is honoured, known to be harmless, or an error.

Three kinds of fields: those a family reads; `HARMLESS` ones, which change no number a model computes from ids or
samples; and `fixed` ones, which may only have the values at which they change nothing. Any other field that is not
null is named as unsupported.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from slm_jax.core.config import Config, diff
from slm_jax.core.errors import UserError

Hub = Mapping[str, Any]
Number = TypeVar("Number", int, float)
C = TypeVar("C", bound=Config)

HARMLESS = frozenset(
    (
        # where the folder comes from, and the dtype of its file, which the file itself tells
        *("_name_or_path", "name_or_path", "architectures", "custom_pipelines", "dtype", "torch_dtype"),
        *("model_type", "transformers_version", "_commit_hash", "unsloth_version", "_attn_implementation_autoset"),
        # ids and habits of text and generation; the settings of decoding are given where decoding is asked for
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
        *("prefix", "suffix", "task_specific_params", "tokenizer_class", "bad_words_ids", "generation_config"),
        # TWIST: what is added to a unit to make it an id
        "offset",
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "temperature"),
        *("top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
        *("encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores", "return_dict_in_generate"),
        *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
        *("suppress_tokens", "begin_suppress_tokens", "diversity_penalty", "is_decoder", "use_cache", "output_past"),
        *("max_sequence_length", "transformers.js_config"),
        # what is returned and how it is computed, with the same result
        *("output_attentions", "output_hidden_states", "return_dict", "torchscript", "chunk_size_feed_forward"),
        *("gradient_checkpointing", "pretraining_tp", "tf_legacy_loss", "use_bfloat16", "attn_implementation"),
        # labels and losses of heads that are no part of these models (their weights would be named as without a rule)
        *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "finetuning_task"),
    )
)
ALWAYS_OFF: dict[str, tuple] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
}
"""Of all families: field -> the values at which it changes nothing (null always does)."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""The name in a `config.json` -> ours."""
HUB_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
RUNNING_FIELDS = ("unroll", "remat", "dtype")
"""Fields of ours that say how a model runs, not what it is: no `config.json` has them."""


class UnsupportedFields(UserError):
    """Fields of a `config.json` that we can't honour, one line each (`faults`)."""

    def __init__(self, family: str, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"config.json of {family}: " + "; ".join(faults))


class HubConfig:
    """Access to the fields of one `config.json` that remembers what was read and gathers what is wrong.

    Read fields with `get` and its kind, complain with `unless`, then `make` the config: only that raises.
    """

    def __init__(self, family: str, fields: Hub, fixed: Mapping[str, tuple] | None = None) -> None:
        self.family, self.fields = family, fields
        self.fixed = {**ALWAYS_OFF, **(fixed or {})}
        self.read: set[str] = set()
        self.faults: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` when it is absent or null."""
        self.read.add(name)
        value = self.fields.get(name)
        return default if value is None else value

    def number(self, name: str, default: Number) -> Number:
        """A field that must be a number of the kind of `default`, which stands in when it is absent or null."""
        value = self.get(name, default)
        kind = type(default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and kind(value) == value
        self.unless(good, name, value, f"must be {'a whole number' if kind is int else 'a number'}")
        return kind(value) if good else default

    def flag(self, name: str, default: bool) -> bool:
        """A field that must be true or false."""
        value = self.get(name, default)
        self.unless(isinstance(value, bool), name, value, "must be true or false")
        return bool(value)

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A field that must be a list of positive whole numbers."""
        value = self.get(name, default)
        good = isinstance(value, list | tuple) and all(type(item) is int and item > 0 for item in value)
        self.unless(good and len(value) > 0, name, value, "must be a list of positive whole numbers")
        return tuple(value) if good else default

    def activation(self, name: str, default: str) -> str:
        """Our name of the non-linearity in a field."""
        value = str(self.get(name, default))
        self.unless(value in ACTIVATIONS, name, value, f"must be one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS.get(value, "gelu")

    def unless(self, condition: bool, name: str, value: Any, rule: str) -> None:
        """Note a fault unless `condition` holds."""
        if not condition:
            self.faults.append(f"{name} is {value!r}: {rule}")

    def make(self, config_type: type[C], **fields: Any) -> C:
        """The config with these fields of ours, once nothing is left to complain about.

        Raises all faults together, with every field that nobody read and that is not known to change nothing.
        """
        for name, value in self.fields.items():
            if value is None or name in self.read or name in HARMLESS:
                continue
            allowed = self.fixed.get(name)
            if allowed is None:
                self.faults.append(f"{name} is {value!r}: this field is not supported")
            elif value not in allowed:
                self.faults.append(f"{name} is {value!r}: only {' or '.join(map(repr, (*allowed, None)))} is supported")
        if self.faults:
            raise UnsupportedFields(self.family, self.faults)
        return config_type(**fields)


def require_said(family: str, ours: Config, read_back: Config, unsaid: tuple[str, ...] = ()) -> None:
    """Raise `UserError` naming the fields of ours that the family's `config.json` can't say.

    `read_back` is what reading the written fields gives; `unsaid` are fields whose loss is of no consequence.
    """
    lost = re.compile(rf"({'|'.join((*RUNNING_FIELDS, *unsaid))})\b")
    faults = [line for line in diff(ours, read_back) if not lost.match(line)]
    if faults:
        raise UserError(f"{family} can't say {'; '.join(faults)}")


def is_type(*kinds: str) -> Any:
    """A predicate: has a `config.json` one of these `model_type`s?"""
    return lambda hub: hub.get("model_type") in kinds
