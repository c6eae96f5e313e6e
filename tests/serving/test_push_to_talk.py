"""A site of a system that answers in turns: push to talk, words, faults."""

import numpy as np
import pytest

from slm_jax.serving.replies import Replies
from slm_jax.serving.web.limits import Limits
from slm_jax.serving.web.site import Site, served
from slm_jax.serving.web.sound import RATE_HZ
from tests.serving.drawn import drawn_unit_speech_lm, noise
from tests.serving.drawn_slm import drawn_slm
from tests.serving.talking import BEGIN, END, connected, run, tone


@pytest.fixture(scope="module")
def answering():
    """A system that hears and reads and writes words; its site."""
    system = drawn_slm()
    with (
        Replies(system) as replies,
        served(Site("words", system, replies, seats=2, limits=Limits(clip_s=2))) as address,
    ):
        yield address, system


async def asked(address, *clips, words=None):
    """One client who says each clip, writes the words, and asks once."""
    async with connected(address) as client:
        for clip in clips:
            await client.say(clip, piece=3000)
            await client.send("input_audio_buffer.commit")
        if words:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}
            await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        await client.until("response.done")
        return client


def test_push_to_talk_is_answered_in_words(answering):
    address, system = answering
    client = run(asked(address, tone(0.5), words="What?"))
    kinds = [kind for kind in client.kinds() if not kind.startswith("conversation")]
    wanted = ["response.output_text.delta", "response.output_text.done"]
    assert kinds[1:] == ["input_audio_buffer.committed", *BEGIN[:2], BEGIN[3], *wanted, *END[:2], END[3]]
    assert client.events[0]["session"]["output_modalities"] == ["text"]
    done = client.events[-1]
    assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": client.words()}]
    assert set(done["latency_ms"]) == {"queue", "model", "out"}
    again = run(asked(address, tone(0.5), words="What?"))
    assert again.words() == client.words() != run(asked(address, tone(0.5), words="Who is it?")).words()


def test_what_goes_wrong_in_a_turn(answering):
    address, _ = answering

    async def wrong():
        async with connected(address) as client:
            await client.send("response.create")
            assert (await client.error())["code"] == "nothing_to_answer"
            await client.send("input_audio_buffer.commit")
            assert (await client.error())["code"] == "input_audio_buffer_commit_empty"
            await client.say(tone(2.1), piece=RATE_HZ)
            assert (await client.error())["code"] == "buffer_full"
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.send("response.cancel")
            assert (await client.error())["code"] == "response_cancel_not_active"
            picture = {"type": "message", "role": "user", "content": [{"type": "input_image"}]}
            await client.send("conversation.item.create", item=picture)
            assert (await client.error())["code"] == "unsupported_item"
            await client.send("conversation.item.create", item={**picture, "role": "system"})
            assert (await client.error())["param"] == "item.role"
            await client.say(tone(0.5))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            await client.send("response.create")
            assert (await client.error())["code"] == "conversation_already_has_active_response"
            await client.send("response.cancel")
            done = await client.until("response.done")
            while done["response"]["status"] == "completed":  # the reply was quicker
                return None
            assert done["response"]["status"] == "cancelled"
            await client.say(tone(0.5))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            assert (await client.until("response.done"))["response"]["status"] == "completed"

    run(wrong())


@pytest.mark.slow(seconds=20)
def test_a_system_without_words_goes_on_in_sound_and_a_fault_is_said():
    system = drawn_unit_speech_lm()
    with Replies(system, seed=3) as replies, served(Site("units", system, replies)) as address:
        clip = np.repeat(0.3 * noise(0.6), 3)[::2].copy()  # 24 kHz
        client = run(asked(address, clip))
        again = run(asked(address, clip))
        two = run(asked(address, clip, clip))
    assert len(client.samples()) > 1000 and client.sound() == again.sound()
    assert client.events[-1]["response"]["output"][0]["content"] == [{"type": "output_audio", "transcript": ""}]
    failed = two.events[-1]["response"]
    assert failed["status"] == "failed" and "2 clips" in failed["status_details"]["error"]["message"]
