"""How a conversation is put to a text language model: templates as data.

    CHATML.pieces(conversation, answered=True)

gives what is read in order: marks (whose special tokens count), words, clips by number. Words and marks become ids
apart from each other, so that no word of a user becomes a mark.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Speech, Text


class Piece(NamedTuple):
    """A stretch of what is read: a mark or words (`text`), or the clip of that number.

    `answer`: does it belong to what the assistant says last, and is to be learnt?
    """

    text: str = ""
    is_mark: bool = False
    clip: int | None = None
    answer: bool = False


Around = tuple[str, str]


class Template(Config):
    """What stands before and after each message, by its role, and around each clip.

    `begin` opens the whole. `between` joins the parts of one message. `default_system`: what is said where no message
    is of the system; None: nothing. `numbered`: stands before each clip, `{number}` counting from 1. The mark after the
    assistant's message ends a reply. `earlier_end`: what stands there after replies before the last (examples in the
    prompt); None: the same. `fused`: marks and words that stand side by side become ids together, as where marks are
    plain text; the mark that begins and the one that ends a reply stay alone, and no word becomes a special token.
    """

    begin: str = ""
    system: Around = ("", "")
    user: Around = ("", "")
    assistant: Around = ("", "")
    speech: Around = ("", "")
    between: str = ""
    numbered: str = ""
    default_system: str | None = None
    earlier_end: str | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        require(bool(self.assistant[1]), "assistant", self.assistant, "what stands after it ends a reply: not empty")

    def pieces(self, conversation: Conversation, answered: bool) -> list[Piece]:
        """All that is read; `answered`: the last message is the assistant's answer, else it is to come.

        Raises `UserError` where an answer is asked for and the last message is not the assistant's words.
        """
        said = conversation[:-1] if answered else conversation
        if answered:
            last = conversation[-1]
            good = last.role == "assistant" and last.kinds == {"text"}
            require(good, "last message", (last.role, sorted(last.kinds)), "an answer is words of the assistant")
        if self.default_system is not None and all(message.role != "system" for message in said):
            said = (Message("system", (Text(self.default_system),)), *said)
        clips = iter(range(sum(len(message.speech) for message in said)))
        found = [Piece(self.begin, True)]
        for message in said:
            found += self._message(message, clips)
        found.append(Piece(self.assistant[0], True))
        if answered:
            words = conversation[-1].text
            found += [Piece(words, answer=True), Piece(self.assistant[1].rstrip("\n"), True, answer=True)]
        found = [piece for piece in found if piece.text or piece.clip is not None]
        return self._fused(found) if self.fused else found

    def _fused(self, pieces: list[Piece]) -> list[Piece]:
        """Marks as words, and neighbouring words that are learnt alike as one piece."""
        found: list[Piece] = []
        for piece in pieces:
            alone = piece.clip is not None or (piece.is_mark and piece.text in (self.begin, self.end))
            before = found[-1] if found else None
            joins = before is not None and before.clip is None and not before.is_mark and before.answer == piece.answer
            if alone:
                found.append(piece)
            elif joins and before is not None:
                found[-1] = before._replace(text=before.text + piece.text)
            else:
                found.append(piece._replace(is_mark=False))
        return found

    def _message(self, message: Message, clips: Iterator[int]) -> list[Piece]:
        said_before = (self.assistant[0], self.assistant[1] if self.earlier_end is None else self.earlier_end)
        before, after = {"system": self.system, "user": self.user, "assistant": said_before}[message.role]
        found = [Piece(before, True)]
        for place, part in enumerate(message.parts):
            found += [Piece(self.between, True)] if place else []
            if isinstance(part, Speech):
                number = next(clips)
                opens = self.numbered.format(number=number + 1) + self.speech[0]
                found += [Piece(opens, True), Piece(clip=number), Piece(self.speech[1], True)]
            else:
                found.append(Piece(part.text))
        return [*found, Piece(after, True)]

    @property
    def end(self) -> str:
        """The first token of this mark ends a reply."""
        return self.assistant[1].rstrip("\n")


CHATML = Template(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    between=" ",
)
"""SmolLM2, Qwen and many others."""
QWEN2_AUDIO = CHATML.replace(
    speech=("<|audio_bos|>", "<|audio_eos|>"),
    numbered="Audio {number}: ",
    between="\n",
    default_system="You are a helpful assistant.",
)
VICUNA = Template(
    begin="<s>",
    user=("USER: ", "\n"),
    assistant=("ASSISTANT:", "</s>"),
    speech=("<Speech>", "</Speech> "),
    fused=True,
)
"""SALMONN's form of Vicuna's; its marks around a clip are plain text."""
LLAMA2 = Template(
    begin="<s>",
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    user=("[INST] ", " [/INST]"),
    assistant=(" ", " </s>"),
    speech=("<SPEECH> ", " </SPEECH> "),
)
PLAIN = Template(begin="<s>", user=("", "\n"), assistant=("", "</s>"), between=" ")
"""For a language model of one's own that knows no roles."""


def clips_of(conversation: Conversation) -> list[Speech]:
    """The clips of a conversation in the order in which they are numbered."""
    return [clip for message in conversation for clip in message.speech]


def with_placeholders(text: str, clips: Sequence[Speech], mark: str = "<speech>") -> tuple[Speech | Text, ...]:
    """The parts of a message out of a text in which `mark` stands for each of the clips, in order.

    Raises `UserError` when there are not as many marks as clips.
    """
    words = text.split(mark)
    if len(words) - 1 != len(clips):
        raise UserError(f"text has {len(words) - 1} times {mark!r}: there are {len(clips)} clips, one for each")
    parts: list[Speech | Text] = []
    for place, stretch in enumerate(words):
        parts += [Text(stretch)] if stretch.strip() else []
        parts += [clips[place]] if place < len(clips) else []
    return tuple(parts)
