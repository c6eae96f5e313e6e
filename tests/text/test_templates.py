"""What is read of a conversation: the literal strings of the templates, with clips by number."""

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, written
from slm_jax.text import templates
from slm_jax.text.templates import (
    CHATML,
    LLAMA2,
    PLAIN,
    QWEN2_AUDIO,
    QWEN2_AUDIO_BASE,
    QWEN_AUDIO,
    QWEN_AUDIO_CHAT,
    STORIES,
    T5,
    VICUNA,
    Template,
    clips_of,
    with_placeholders,
)

CLIPS = [Speech(np.full(4, number, np.float32), 16_000) for number in range(3)]
ANSWER = Message("assistant", (Text("Two cats."),))
ASKED = (Message("user", (CLIPS[0], Text("What is said?"))),)
TOLD = (
    Message("system", (Text("Be brief."),)),
    Message("user", (CLIPS[0], Text("and"), CLIPS[1])),
    Message("assistant", (Text("Yes."),)),
    Message("user", (Text("Why?"),)),
)


def told(template, conversation, answered=False):
    """One string, clips as [0], [1]; what is learnt stands behind a bar."""
    pieces = template.pieces(conversation, answered)
    learnt = [piece.answer for piece in pieces]
    assert learnt == sorted(learnt), "the answer stands at the end"
    spelt = [piece.text if piece.clip is None else f"[{piece.clip}]" for piece in pieces]
    count = len(pieces) - sum(learnt)
    return "".join(spelt[:count]) + ("|" + "".join(spelt[count:]) if answered else "")


@pytest.mark.parametrize(
    ("template", "string"),
    [
        (T5, "[0] What is said?</s>|Two cats.</s>"),
        (CHATML, "<|im_start|>user\n[0] What is said?<|im_end|>\n<|im_start|>assistant\n|Two cats.<|im_end|>"),
        (
            QWEN2_AUDIO,
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "Audio 1: <|audio_bos|>[0]<|audio_eos|>\nWhat is said?<|im_end|>\n"
            "<|im_start|>assistant\n|Two cats.<|im_end|>",
        ),
        (QWEN2_AUDIO_BASE, "<|audio_bos|>[0]<|audio_eos|>What is said?|Two cats.<|endoftext|>"),
        (
            QWEN_AUDIO_CHAT,
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "Audio 1:[0]\nWhat is said?<|im_end|>\n<|im_start|>assistant\n|Two cats.<|im_end|>",
        ),
        (QWEN_AUDIO, "[0]What is said?|Two cats.<|endoftext|>"),
        (VICUNA, "<s>USER: <Speech>[0]</Speech> What is said?\nASSISTANT:|Two cats.</s>"),
        (LLAMA2, "<s>[INST] <SPEECH> [0] </SPEECH> What is said? [/INST]|Two cats. </s>"),
        (PLAIN, "<s>[0] What is said?\n|Two cats.</s>"),
        (STORIES, "<s>[0]\nWhat is said?\n|Two cats.<s>"),
    ],
)
def test_a_question_about_speech_as_published(template, string):
    assert told(template, (*ASKED, ANSWER), answered=True) == string
    assert told(template, ASKED) == string.split("|Two")[0]
    assert from_json(template.to_json()) == template


@pytest.mark.parametrize(
    ("template", "string"),
    [
        (
            CHATML,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n[0] and [1]<|im_end|>\n"
            "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            QWEN2_AUDIO,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>[0]<|audio_eos|>\nand"
            "Audio 2: <|audio_bos|>[1]<|audio_eos|>\n<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            LLAMA2,
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<SPEECH> [0] </SPEECH> and<SPEECH> [1] </SPEECH>  [/INST]"
            "Yes. </s><s>[INST] Why? [/INST]",
        ),
    ],
)
def test_several_turns_and_clips(template, string):
    assert told(template, TOLD) == string


def test_a_system_that_says_nothing_else_stands_alone():
    assert told(LLAMA2, TOLD[:1]) == "<<SYS>>\nBe brief.\n<</SYS>>\n\n"
    assert told(CHATML.replace(default_system="Hm."), written("a")).startswith("<|im_start|>system\nHm.<|im_end|>\n")


def test_words_are_no_marks_and_the_end_is_one_token():
    pieces = CHATML.pieces(written("<|im_end|>"), answered=False)
    assert [(piece.text, piece.is_mark) for piece in pieces][1] == ("<|im_end|>", False)
    assert [template.end for template in (CHATML, LLAMA2, VICUNA)] == ["<|im_end|>", "</s>", "</s>"]
    with pytest.raises(UserError, match="ends a reply"):
        Template(assistant=("a", " \n"))


def test_a_part_that_is_a_tag_is_a_mark():
    template = PLAIN.replace(tags=("<|asr|>",))
    marks = [
        piece.text
        for text in ("<|asr|>", "so <|asr|>")
        for piece in template.pieces(written(text), False)
        if piece.is_mark
    ]
    assert marks == ["<s>", "<|asr|>", "\n", "<s>", "\n"]


@pytest.mark.parametrize("last", [Message("user", (Text("a"),)), Message("assistant", (CLIPS[0],))])
def test_an_answer_is_words_of_the_assistant(last):
    with pytest.raises(UserError, match="an answer is words of the assistant"):
        CHATML.pieces((*ASKED, last), answered=True)


def test_placeholders_stand_for_clips_in_order():
    parts = with_placeholders("<speech> Which of <speech>, then?", CLIPS[:2])
    assert parts[0] is CLIPS[0] and parts[2] is CLIPS[1]
    assert (parts[1], parts[3]) == (Text(" Which of "), Text(", then?"))
    assert clips_of((Message("user", parts), *ASKED)) == [CLIPS[0], CLIPS[1], CLIPS[0]]
    assert with_placeholders("no clip", []) == (Text("no clip"),)
    assert with_placeholders("[A][A]", CLIPS[:2], mark="[A]") == (CLIPS[0], CLIPS[1])


@pytest.mark.parametrize(("text", "clips", "told"), [("<speech>", 2, "1 times"), ("<speech><speech>", 1, "2 times")])
def test_placeholders_and_clips_must_be_as_many(text, clips, told):
    with pytest.raises(UserError, match=f"text has {told} '<speech>': there are {clips} clips, one for each"):
        with_placeholders(text, CLIPS[:clips])


def test_every_template_here_is_tested():
    known = {name for name, value in vars(templates).items() if isinstance(value, Template)}
    assert known == {
        *("CHATML", "QWEN2_AUDIO", "QWEN2_AUDIO_BASE", "QWEN_AUDIO", "QWEN_AUDIO_CHAT"),
        *("VICUNA", "LLAMA2", "PLAIN", "STORIES", "T5"),
        *("LLAMA3", "DESTA2", "DESTA25", "LTU_AS", "WAVLLM"),  # to the letter in tests/systems, beside their systems
    }
