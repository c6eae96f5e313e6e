"""Model folders by their name on the Hugging Face hub."""

from pathlib import Path

from slm_jax.core.errors import UserError, require

PREFIX = "hub:"
TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configs and tokenizers."""
CARRIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json"),
    *("generation_config.json", "preprocessor_config.json", "processor_config.json", "feature_extractor_config.json"),
)
"""Files of a model folder that go along unchanged: they say nothing about weights."""
WEIGHTS = (("*.safetensors",), ("*.bin", "*.pt", "*.pth"))
"""What weights are called, the preferred first: safetensors hold numbers and nothing that could run."""


def snapshot(address: str) -> Path:
    """The local copy of `hub:NAME` or `hub:NAME@REVISION`, downloaded unless it is in the hub's cache.

    Raises `UserError` when huggingface_hub is not installed or the model can't be had.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    require(bool(name), "source", address, "name the model: hub:ORGANISATION/MODEL")
    folder = _download(name, revision or None, [*TEXTS, *WEIGHTS[0]])
    if not any(folder.glob(WEIGHTS[0][0])):
        folder = _download(name, revision or None, [*TEXTS, *WEIGHTS[1]])
    return folder


def carried(folder: Path) -> list[Path]:
    """The files of a folder that belong to the model whatever form its weights have."""
    return [folder / name for name in CARRIED if (folder / name).is_file()]


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            "hub: addresses need huggingface_hub (pip install 'slm_jax[torch]'); a downloaded folder does not"
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # no network, no such model, no access, a name that can't be one
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"hub:{name} can't be had: {reason}") from error
