"""Items asked by tags: what stands where, and that no field becomes a tag."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.data.examples.tagged_tasks import TaggedTaskConfig
from slm_jax.systems.speech_aware.qwen_audio import TAGGED_QUESTION, TOKENS, keyword, shares, tagged
from slm_jax.text.task_tags import TaskTags

ITEM = {
    "samples": np.ones(640, np.int16),
    "text": "Yes.",
    "energy": "soft",
    "question": "Who <|en|>?",
    "answer": "Eve.",
}


def test_a_keyword_is_asked_by_tags_behind_the_clip():
    user, assistant = keyword("energy").conversation(ITEM, 16_000, np.random.default_rng(0))
    clip, marks = user.parts
    assert isinstance(clip, Speech) and len(clip.samples) == 640
    assert marks == Text("<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|energy|>")
    assert assistant.parts == (Text("soft"),)
    assert keyword("register").conversation(ITEM, 16_000, np.random.default_rng(0)) is None


def test_rows_hold_tags_as_single_ids_and_questions_as_words():
    tokens = TOKENS.make()
    layout = PromptLayout(tokens, tagged(shares(question=(1.0, TAGGED_QUESTION))), lambda samples: samples // 320)
    conversation = TAGGED_QUESTION.conversation(ITEM, 16_000, np.random.default_rng(0))
    entries = layout.entries(conversation, answered=True)
    marks = [tokens.special(f"<|{tag}|>") for tag in ("startofanalysis", "en", "question")]
    wanted = [0, 0, *marks, *tokens.encode("Who <|en|>?"), tokens.special("<|answer|>"), *tokens.encode("Eve.")]
    assert entries.ids.tolist() == [*wanted, tokens.special("<|endoftext|>")]
    assert entries.clip[:3].tolist() == [0, 0, -1]
    assert entries.learnt.sum() == len("Eve.") + 1


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match="asks is"):
        TaggedTaskConfig(tags=TaskTags(task="transcribe"), asks=("Who?",))
    with pytest.raises(UserError, match="asks is"):
        TaggedTaskConfig(tags=TaskTags(task="question", written=None, times=None))
    with pytest.raises(UserError, match="before is True"):
        TaggedTaskConfig(tags=TaskTags(task="transcribe"), before=True)
