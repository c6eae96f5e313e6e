"""The fields of a decoder and their rules: what its layers read."""

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import activation
from slm_jax.nn.positions import RopeScaling
from slm_jax.nn.relative_bias import RelativeBiasConfig

POSITIONS = ("none", "sinusoidal", "cosines_first", "learned", "rope")


class DecoderShape(Config):
    """A transformer over one stream of token ids, which may listen to a context.

    Attention
        With `causal` False every entry sees all real ones: an encoder, which reads whole rows and never steps.
        `window` limits a causal one to the last steps. `attention_scale` of the scores is `1 / sqrt(head_width)`
        unless given (T5: 1).
    Widths
        `kv_heads` and `head_width` default to `heads` and `width / heads`; `embed_width`, when it differs from
        `width`, puts a bias-free map before the stack and one after it (OPT-350M). With `context_width` each layer
        also attends to a context of so many channels, after its own sequence.
    Norms
        `norm` is "layer", with a bias where `norm_bias`, or "rms"; `norm_order` "pre" (before each half of a layer,
        after the residual is taken) or "post" (after the sum); `final_norm` adds one after the last layer.
    Positions
        "learned" and "sinusoidal" add a vector, at index position + `position_offset` ("cosines_first": sinusoidal with
        its halves exchanged); "rope" turns queries and keys.
        `max_positions` bounds the length (None: no bound, not for "learned"). `relative_bias` adds a learnt number by
        distance to the scores of self-attention, from one table for all layers.
    Head
        The rows of the token table where `tied_head`, else a matrix of its own; it reads features times `head_scale`.
    Running
        `unroll` True, False or "auto" and `remat` are those of `nn.stack`; `dtype` is the compute dtype, while
        parameters and logits are float32.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    hidden: int
    kv_heads: int | None = None
    head_width: int | None = None
    embed_width: int | None = None
    context_width: int | None = None
    norm: str = "layer"
    norm_epsilon: float = 1e-5
    norm_bias: bool = True
    norm_order: str = "pre"
    final_norm: bool = True
    qk_norm: bool = False
    activation: str = "gelu"
    gated: bool = False
    qkv_bias: bool = True
    key_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    positions: str = "learned"
    position_offset: int = 0
    max_positions: int | None = None
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    relative_bias: RelativeBiasConfig | None = None
    attention_scale: float | None = None
    causal: bool = True
    embed_scale: float = 1.0
    tied_head: bool = True
    head_scale: float = 1.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    window: int | None = None
    init_scale: float = 0.02
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "heads", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.layers >= 1, "layers", self.layers, "must be at least 1")
        require(self.norm in ("layer", "rms"), "norm", self.norm, "must be layer or rms")
        require(self.norm_order in ("pre", "post"), "norm_order", self.norm_order, "must be pre or post")
        require(self.positions in POSITIONS, "positions", self.positions, f"must be one of {', '.join(POSITIONS)}")
        bounded = self.positions != "learned" or self.max_positions is not None
        require(bounded, "max_positions", self.max_positions, "learned positions need a number")
        if self.head_width is None:
            require(self.width % self.heads == 0, "heads", self.heads, f"must divide width {self.width}")
        require(self.heads % self.groups == 0, "kv_heads", self.kv_heads, f"must divide heads {self.heads}")
        even = self.positions != "rope" or self.channels % 2 == 0
        require(even, "head_width", self.channels, "must be even for rotary positions")
        require(self.window is None or self.window >= 1, "window", self.window, "must be at least 1")
        plain = self.causal and self.relative_bias is None
        require(self.window is None or plain, "window", self.window, "goes with causal attention without relative bias")
        one_sided = self.relative_bias is None or self.relative_bias.bidirectional != self.causal
        require(one_sided, "relative_bias.bidirectional", self.causal, "must be False where attention is causal")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            require(0.0 <= getattr(self, name) < 1.0, name, getattr(self, name), "must lie in [0, 1)")
        activation(self.activation)
        compute_dtype(self.dtype)

    @property
    def groups(self) -> int:
        """Key-value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def channels(self) -> int:
        """Channels of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def table_width(self) -> int:
        """Channels of the token table and of what the head reads."""
        return self.width if self.embed_width is None else self.embed_width
