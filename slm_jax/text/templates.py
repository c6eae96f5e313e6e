"""How a conversation is put to a text language model: templates as data.

    CHATML.pieces(conversation, answered=True)

gives what is read in order: marks (whose special tokens count), words, clips by number. Which is which stays known, so
that no word of a user becomes a special token.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Speech, Text


class Piece(NamedTuple):
    """A stretch of what is read: a mark or words (`text`), or the clip of that number.

    `answer`: does it belong to what the assistant says last, and is to be learnt? `reply`: to what it said before?
    Both become ids apart from what they are given.
    """

    text: str = ""
    is_mark: bool = False
    clip: int | None = None
    answer: bool = False
    reply: bool = False


Around = tuple[str, str]


class Template(Config):
    """What stands before and after each message, by its role, and around each clip.

    `begin` opens the whole. `between` joins the parts of one message. `default_system`: what is said where no message
    is of the system; None: nothing. `nested_system`: what the system says stands inside the next message, behind what
    opens that (LLaMA 2). `numbered`: stands before each clip, `{number}` counting from 1, with `numbered_anew` in each
    message. What stands after the message of the assistant ends a reply: one special token, with or without spaces and
    new lines about it. `earlier_end`: what stands there after replies before the last, such as those of examples; None:
    the same. `tags`: what is written is a mark where a whole part is spelt so, such as a special token that names the
    task.
    """

    begin: str = ""
    system: Around = ("", "")
    user: Around = ("", "")
    assistant: Around = ("", "")
    speech: Around = ("", "")
    between: str = ""
    numbered: str = ""
    numbered_anew: bool = False
    default_system: str | None = None
    nested_system: bool = False
    tags: tuple[str, ...] = ()
    earlier_end: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.end), "assistant", self.assistant, "what stands after it ends a reply: not empty")

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
        found, inside = [Piece(self.begin, True)], list[Piece]()
        for message in said:
            own = self._message(message, inside, clips)
            inside = own if self.nested_system and message.role == "system" else []
            found += own if not inside else []
        found += [*inside, Piece(self.assistant[0], True)]
        if answered:
            words = conversation[-1].text
            found += [Piece(words, answer=True), Piece(self.assistant[1].rstrip("\n"), True, answer=True)]
        return [piece for piece in found if piece.text or piece.clip is not None]

    def _message(self, message: Message, inside: list[Piece], clips: Iterator[int]) -> list[Piece]:
        """`inside`: what is said behind that which opens the message."""
        replied = (self.assistant[0], self.assistant[1] if self.earlier_end is None else self.earlier_end)
        before, after = {"system": self.system, "user": self.user, "assistant": replied}[message.role]
        found, reply, own = [Piece(before, True), *inside], message.role == "assistant", 0
        for place, part in enumerate(message.parts):
            found += [Piece(self.between, True)] if place else []
            if isinstance(part, Speech):
                number, own = next(clips), own + 1
                opens = self.numbered.format(number=own if self.numbered_anew else number + 1) + self.speech[0]
                found += [Piece(opens, True), Piece(clip=number), Piece(self.speech[1], True)]
            else:
                found.append(Piece(part.text, part.text in self.tags, reply=reply))
        return [*found, Piece(after, True, reply=reply)]

    @property
    def end(self) -> str:
        """The special token that ends a reply."""
        return self.assistant[1].strip()


CHATML = Template(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    between=" ",
)
"""SmolLM2, Qwen and many others."""
QWEN2_AUDIO = CHATML.replace(
    speech=("<|audio_bos|>", "<|audio_eos|>\n"),
    numbered="Audio {number}: ",
    between="",
    default_system="You are a helpful assistant.",
)
"""Voice chat is a clip without words, audio analysis one with words behind it. Reference: `Qwen2AudioProcessor`."""
QWEN2_AUDIO_BASE = Template(speech=("<|audio_bos|>", "<|audio_eos|>"), assistant=("", "<|endoftext|>"))
"""Qwen2-Audio before it is made to chat: a clip, what is asked in plain words, what is to be written."""
QWEN_AUDIO_CHAT = QWEN2_AUDIO.replace(speech=("", "\n"), numbered="Audio {number}:", numbered_anew=True)
"""Qwen-Audio-Chat: where a clip begins and ends is said by vectors of the adapter."""
QWEN_AUDIO = Template(assistant=("", "<|endoftext|>"))
"""Qwen-Audio before it is made to chat: a clip, the tags of a task (`text.task_tags`), what is to be written.

Which rows of tags there are is to be said (`tags`).
"""
VICUNA = Template(
    begin="<s>", user=("USER: ", "\n"), assistant=("ASSISTANT:", "</s>"), speech=("<Speech>", "</Speech> ")
)
"""SALMONN's form of Vicuna's."""
LLAMA2 = Template(
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    user=("<s>[INST] ", " [/INST]"),
    assistant=("", " </s>"),
    speech=("<SPEECH> ", " </SPEECH> "),
    nested_system=True,
)
"""The space in front of an answer is what its tokenizer puts before every text."""
T5 = Template(assistant=("</s>", "</s>"), between=" ")
"""T5, mT5 and what was made of them: no roles, and one mark at the end of what is read and of what is written."""
PLAIN = Template(begin="<s>", user=("", "\n"), assistant=("", "</s>"), between=" ")
"""For a language model of one's own that knows no roles."""
STORIES = PLAIN.replace(assistant=("", "<s>"), between="\n")
"""Small LLaMAs that tell stories (`stories15m`): what ends a story is what begins the next; they never read `</s>`."""


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
