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
    `heard`: is it what was written down of a clip? All three become ids apart from what stands about them.
    """

    text: str = ""
    is_mark: bool = False
    clip: int | None = None
    answer: bool = False
    reply: bool = False
    heard: bool = False


Around = tuple[str, str]


class Template(Config):
    """What stands before and after each message, by its role, and around each clip.

    `begin` opens the whole. `between` joins the parts of one message. `default_system`: what is said where no message
    is of the system; None: nothing. `nested_system`: what the system says stands inside the next message, behind what
    opens that (LLaMA 2). `numbered`: stands before each clip, `{number}` counting from 1, with `numbered_anew` in each
    message. What stands after the message of the assistant ends a reply: one special token, with or without spaces and
    new lines about it. `earlier_end`: what stands there after replies before the last, such as those of examples; None:
    the same. `tags`: what is written is a mark where a whole part is spelt so, such as a special token that names the
    task. `heard`: how what was written down of a clip stands behind it, such as "{words}"; None: it does not. `apart`:
    clips stand in messages of their own, between these, in front of the message that holds them.
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
    heard: str | None = None
    apart: Around | None = None

    def __post_init__(self) -> None:
        require(self.heard is None or "{words}" in self.heard, "heard", self.heard, "has a place for {words}")
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
        reply, parts, own = message.role == "assistant", list(message.parts), 0
        found: list[Piece] = []
        if self.apart is not None and message.speech:
            opens, closes = (Piece(mark, True) for mark in self.apart)
            for clip in message.speech:
                found += [opens, *self._clip(clip, next(clips), own := own + 1), closes]
            parts = [part for part in parts if isinstance(part, Text)]
            if not parts and not inside:
                return found
        found += [Piece(before, True), *inside]
        for place, part in enumerate(parts):
            found += [Piece(self.between, True)] if place else []
            if isinstance(part, Speech):
                found += self._clip(part, next(clips), own := own + 1)
            else:
                found.append(Piece(part.text, part.text in self.tags, reply=reply))
        return [*found, Piece(after, True, reply=reply)]

    def _clip(self, clip: Speech, number: int, own: int) -> list[Piece]:
        """A clip with what stands about it; it is number `own` of its message."""
        opens = self.numbered.format(number=own if self.numbered_anew else number + 1) + self.speech[0]
        around = [Piece(opens, True), Piece(clip=number), Piece(self.speech[1], True)]
        if self.heard is None:
            return around
        if clip.words is None:
            raise UserError(f"clip {number + 1}: nobody has written down what is said in it, and the template wants it")
        return [*around[:2], Piece(self.heard.format(words=clip.words), heard=True), around[2]]

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
LLAMA3 = Template(
    begin="<|begin_of_text|>",
    system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    between=" ",
)
"""LLaMA 3 as it chats."""
DESTA2 = LLAMA3.replace(apart=("<|start_header_id|>audio<|end_header_id|>\n\n", "<|eot_id|>"), heard="{words}")
"""DeSTA2: a clip and its transcript are a message of the role "audio"."""
DESTA25 = LLAMA3.replace(speech=("<start_audio>", "<end_audio>"), heard="{words}")
"""DeSTA2.5: within a message, between two marks that are plain words to the language model's tokenizer."""
LTU_AS = Template(
    system=("### Input:\n", "\n\n"),
    user=("", "\n\n"),
    assistant=("### Response:\n", "</s>"),
    speech=("", "<s>### Instruction:\n"),
)
"""The short form of Alpaca's behind a clip, which stands before everything: it begins no text without one.

What the system says is the transcript.
"""
WAVLLM = Template(
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    user=("<s>[INST]", " [/INST]"),
    assistant=("", "</s>"),
    speech=("<SPEECH>", " </SPEECH> "),
    default_system=(
        "As a helpful language and speech assistant, you are able to understand the speech content provided by the "
        "user, and assist the user with a variety of tasks using natural language."
    ),
    nested_system=True,
)
"""WavLLM's form of LLaMA 2's. The tags of speech are plain text. Reference: `SpeechLLMDataset`."""
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
