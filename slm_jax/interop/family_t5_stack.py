"""T5's decoder with nothing to listen to: a stage of AudioLM (Borsos et al. 2022), the `T5Stack` of transformers.

No published `config.json` has this `model_type`. Its fields are those of `T5Config`, its names those of a `T5Stack`
that `is_decoder`, with `lm_head.weight` beside them. Such a stack has weights for a context even where there is none:
nothing reads them, so they are left aside on the way in and not written.
"""

from typing import Any

from slm_jax.interop.decoder_shapes import abstract_params, boxed_params, plain
from slm_jax.interop.family import Family
from slm_jax.interop.family_t5 import HEAD, read_form, stack_rules, write_form
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Table, rule
from slm_jax.interop.transforms import Dense
from slm_jax.sequence_models.decoder_config import DecoderConfig

KIND = "t5_stack"
FIXED = {"tie_word_embeddings": (False,), "scale_decoder_outputs": (False,)}
UNHEARD = r"block\.\d+\.layer\.1\.(EncDecAttention\.(q|k|v|o|relative_attention_bias)|layer_norm)\.weight"
"""Names of what would listen to a context."""


def read_config(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json`."""
    fields = HubConfig(KIND, hub, FIXED)
    form = read_form(fields, "t5").decoder
    causal = fields.get("is_decoder", False)
    fields.unless(causal is True, "is_decoder", causal, "must be true: a T5Stack sees later entries without it")
    layers = fields.number("num_decoder_layers", form.layers)
    fields.unless(layers == form.layers, "num_decoder_layers", layers, f"must equal num_layers {form.layers}")
    return fields.make(DecoderConfig, **{**vars(form), "context_width": None})


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    hub = {"model_type": KIND, "architectures": ["T5Stack"], "is_decoder": True, **write_form(config)}
    unsaid = ("attention_dropout", "activation_dropout", "init_scale")
    readable = hub | {"tie_word_embeddings": False}  # so that a tied head is named as what can't be said
    require_said(KIND, plain(config), plain(read_config(readable)), unsaid)
    return hub


def table(config: DecoderConfig, spelling: str = "transformers") -> Table:
    """The names of `T5Stack`, and the head's."""
    return Table(
        rules=(
            rule("embed_tokens.weight", "tokens/embedding"),
            *stack_rules(config.gated, last=2),
            rule(HEAD, "head_kernel", Dense()),
        ),
        ignored=(UNHEARD,),
    )


T5_STACK = Family(
    name=KIND,
    config_type=DecoderConfig,
    spellings=("transformers",),
    matches=is_type(KIND),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
