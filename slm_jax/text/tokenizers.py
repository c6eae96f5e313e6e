"""Text tokenizers: bytes, characters, and the JSON files of the `tokenizers` library."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from slm_jax.core.config import Config, content_hash
from slm_jax.core.errors import UserError, require


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids 0..size-1 and back; specials belong to the `Vocabulary`, not here."""

    @property
    def size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class ByteTokenizerConfig(Config):
    """UTF-8 bytes: 256 ids, any text, exact inverse."""

    def make(self) -> "ByteTokenizer":
        """The tokenizer."""
        return ByteTokenizer()


class ByteTokenizer:
    """UTF-8 bytes as ids."""

    size = 256

    def encode(self, text: str) -> list[int]:
        """One id per byte."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """The text; bytes that do not form a character become U+FFFD. Raises `UserError` outside 0..255."""
        require(all(0 <= i < 256 for i in ids), "byte ids", list(ids), "0 to 255")
        return bytes(ids).decode("utf-8", errors="replace")


class CharacterTokenizerConfig(Config):
    """One id per character of `characters`; `unknown` (one of them) stands for all others, None refuses them."""

    characters: str
    unknown: str | None = None

    def __post_init__(self) -> None:
        require(len(set(self.characters)) == len(self.characters) > 0, "characters", self.characters, "no doubles")
        known = self.unknown is None or (len(self.unknown) == 1 and self.unknown in self.characters)
        require(known, "unknown", self.unknown, "None or one of `characters`")

    def make(self) -> "CharacterTokenizer":
        """The tokenizer."""
        return CharacterTokenizer(self)

    @classmethod
    def of_texts(cls, texts: Iterable[str], unknown: str | None = None) -> "CharacterTokenizerConfig":
        """All characters that occur in `texts`, sorted."""
        found = sorted(set().union(*map(set, texts)) | set(unknown or ""))
        return cls(characters="".join(found), unknown=unknown)


class CharacterTokenizer:
    """Characters as ids, in the order of the config."""

    def __init__(self, config: CharacterTokenizerConfig) -> None:
        self.config = config
        self._ids = {character: i for i, character in enumerate(config.characters)}

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self._ids)

    def encode(self, text: str) -> list[int]:
        """One id per character; raises `UserError` for an unknown one unless the config has a stand-in."""
        stand_in = self.config.unknown
        foreign = sorted(set(text) - self._ids.keys())
        require(stand_in is not None or not foreign, "text", text, f"has unknown characters {''.join(foreign)!r}")
        return [self._ids[c if c in self._ids else str(stand_in)] for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; raises `UserError` for an id out of range."""
        require(all(0 <= i < self.size for i in ids), "character ids", list(ids), f"0 to {self.size - 1}")
        return "".join(self.config.characters[i] for i in ids)


class TokenizerFileConfig(Config):
    """A `tokenizer.json` of the `tokenizers` library (as published with most language models)."""

    path: str

    def make(self) -> "TokenizerFile":
        """The tokenizer; raises `UserError` when the file is absent or is none."""
        return TokenizerFile(self)


class TokenizerFile:
    """A tokenizer read from its JSON file; no specials are added in `encode`, and they are dropped in `decode`.

    In `encode` a special token that is spelt out in the text is plain text, so that nobody can slip one in; in
    `encode_marked`, which is for templates, it is that token.
    """

    def __init__(self, config: TokenizerFileConfig) -> None:
        from tokenizers import Tokenizer as Backend  # a compiled library: loaded only when a file is used

        self.config = config
        path = Path(config.path)
        require(path.is_file(), "tokenizer path", config.path, "no such file")
        try:
            self._marked: Any = Backend.from_file(str(path))
            self._backend: Any = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"tokenizer path is {config.path!r}: not a tokenizer file ({error})") from error
        self._backend.encode_special_tokens = True

    @property
    def size(self) -> int:
        """Number of ids, added tokens counted."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids without specials."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are spelt out; none are added."""
        return self._marked.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def special(self, name: str) -> int:
        """Id of a token by its text, such as `<|endoftext|>`; raises `UserError` when there is none."""
        found = self._backend.token_to_id(name)
        if found is None:
            raise UserError(f"tokenizer {self.config.path!r} has no token {name!r}")
        return found


def spelling_hash(tokenizer: Tokenizer) -> str:
    """Of what every id spells: equal for tokenizers under which ids mean the same, whatever file they come from."""
    return content_hash([tokenizer.decode([token]) for token in range(tokenizer.size)])
