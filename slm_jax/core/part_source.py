"""Where the weights of a part of a model come from, as a config says it."""

from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import require

HUB, STAGE = "hub:", "stage:"
INT8 = "int8"
DTYPES = ("float32", "bfloat16", "float16", INT8)


class PartSource(Config):
    """The weights at `path` of a model's variables are those in `source`.

    `path`: the collection and the place in it, `params/encoder`, `frozen/lm`, or `params` for all of it. `source`: a
    folder (a hub's, or one that `convert` wrote), `hub:NAME`, or `stage:NAME` for what an earlier stage of the run
    trained. `dtype`: float32, bfloat16 or float16, None as the part's own config says; int8 keeps the kernels of the
    `Linear` layers of a frozen part in int8 (`nn.int8`) and all else as it is. A `frozen` part enters no checkpoint, no
    optimizer and no slow copy; one that is not is where training starts. `expect`: the config that the weights must
    fit, whose dropout and ways of running are then kept; None takes the source's. `take`: the part of the model in
    `source` that is meant, such as the encoder of Whisper; None: all of it.
    """

    path: str
    source: str
    dtype: str | None = None
    frozen: bool = True
    expect: Config | None = None
    take: str | None = None

    def __post_init__(self) -> None:
        names = self.path.split("/")
        require(all(names), "path", self.path, "must be COLLECTION or COLLECTION/NAME, such as params/encoder")
        self._require_source()
        known = self.dtype is None or self.dtype in DTYPES
        require(known, "dtype", self.dtype, f"must be None or one of {', '.join(DTYPES)}")
        require(self.frozen or self.dtype != INT8, "dtype", self.dtype, "is for frozen parts: integers are not trained")
        trained = self.frozen or names[0] == "params"
        require(trained, "path", self.path, "a part that is trained on lies in params")

    def taken_config(self, config: Config) -> Config:
        """The config of what is meant; raises `UserError` where the model has no such part."""
        own = config if self.take is None else getattr(config, self.take, None)
        rule = f"no part of a {type(config).__name__}"
        require(isinstance(own, Config), f"part {self.path!r}: take", self.take, rule)
        return own  # type: ignore[return-value]

    def taken(self, config: Config, params: Any) -> tuple[Config, Any]:
        """Config and parameters of what is meant; raises `UserError` where the source holds no weights of it."""
        own = self.taken_config(config)
        if self.take is None:
            return own, params
        rule = f"{self.source!r} holds weights of {sorted(params)} only; what was frozen there comes from elsewhere"
        require(self.take in params, f"part {self.path!r}: take", self.take, rule)
        return own, params[self.take]

    def _require_source(self) -> None:
        named = bool(self.source.removeprefix(HUB).removeprefix(STAGE))
        require(named, "source", self.source, "must be a folder, hub:NAME or stage:NAME")

    @property
    def stage(self) -> str | None:
        """The stage of the run that trains this part; None when it comes from outside."""
        return self.source.removeprefix(STAGE) if self.source.startswith(STAGE) else None


def stages_of(parts: tuple[PartSource, ...]) -> tuple[str, ...]:
    """Names of the stages that `parts` come from, each once: they belong to the `needs` of a stage."""
    return tuple(dict.fromkeys(part.stage for part in parts if part.stage is not None))
