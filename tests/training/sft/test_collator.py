"""Batches of conversations: the loss of TRL's own collator, and blank images that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.rendering import Renderer
from knowgen.core.images import open_rgb
from knowgen.training.batches import IGNORED, append_blank_image, padded
from knowgen.training.conversations import load_conversations
from knowgen.training.sft.collator import CUT, NUMBER, ConversationCollator
from knowgen.training.sft.encoding import ConversationEncoder
from tests.helpers import conversations, tiny_models

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

IMAGES = (True, False, True, False)


@pytest.fixture(scope="module")
def model_and_processor() -> tuple[Any, Any]:
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    processor = tiny_models.processor()
    model = Qwen3VLForConditionalGeneration(tiny_models.config(processor.tokenizer))
    return model.double(), processor  # double, so that sums in another order are equal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [conversations.searching(number, image=image) for number, image in enumerate(IMAGES)]
    return conversations.write(tmp_path_factory.mktemp("conversations"), rows)


def collator_of(folder: Path, processor: Any) -> ConversationCollator:
    renderer = Renderer(processor.tokenizer)
    encoder = ConversationEncoder(renderer, processor.image_processor, max_tokens=1000, image_pixels=0)
    return ConversationCollator(load_conversations(folder), processor, renderer, encoder, image_pixels=0)


def batch(folder: Path, processor: Any, numbers: Sequence[int]) -> dict[str, Any]:
    found = collator_of(folder, processor)([{NUMBER: number} for number in numbers])
    assert int(found.pop(CUT)) == 0
    return found


def loss_and_gradient(model: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the sum of the losses of all trained tokens, and its gradient by name."""
    model.zero_grad()
    labels = inputs["labels"][:, 1:]
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    loss.backward()
    zero = torch.zeros(())
    return loss.detach(), {name: zero if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def assert_equal_gradients(first: dict[str, Any], second: dict[str, Any]) -> None:
    for name, gradient in first.items():
        expected = second[name] if second[name].dim() else torch.zeros_like(gradient)
        gradient = gradient if gradient.dim() else torch.zeros_like(expected)
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def test_loss_and_gradient_are_those_of_trl_s_collator(model_and_processor: tuple[Any, Any], folder: Path) -> None:
    import trl
    from PIL import Image
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    model, processor = model_and_processor
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_vl_training.jinja").read_text(encoding="utf-8")
    theirs = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    rows = []
    for found in load_conversations(folder):
        messages = [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in message.pieces
                ],
            }
            for message in found.messages
        ]
        rows.append({"messages": messages, "images": [Image.open(path) for path in found.images]})
    expected = dict(theirs(rows))
    newlines = torch.zeros_like(expected["labels"], dtype=torch.bool)
    newlines[:, 1:] = expected["labels"][:, :-1] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    expected["labels"][newlines] = IGNORED

    ours = batch(folder, processor, range(4))

    for name in ("input_ids", "attention_mask", "labels", "pixel_values", "image_grid_thw"):
        torch.testing.assert_close(ours[name], expected[name], check_dtype=False)
    loss, gradient = loss_and_gradient(model, ours)
    expected_loss, expected_gradient = loss_and_gradient(model, expected)
    torch.testing.assert_close(loss, expected_loss)
    assert_equal_gradients(gradient, expected_gradient)


def test_a_batch_is_the_sum_of_its_rows_with_and_without_images(
    model_and_processor: tuple[Any, Any], folder: Path
) -> None:
    model, processor = model_and_processor
    loss, gradient = loss_and_gradient(model, batch(folder, processor, range(4)))
    alone = [loss_and_gradient(model, batch(folder, processor, [number])) for number in range(4)]
    torch.testing.assert_close(loss, torch.stack([each for each, _ in alone]).sum())
    totals = {}
    for name in gradient:
        shaped = [each[name] for _, each in alone if each[name].dim()]
        totals[name] = torch.stack(shaped).sum(dim=0) if shaped else torch.zeros(())
    assert_equal_gradients(gradient, totals)


def test_a_blank_image_runs_the_vision_tower_and_changes_nothing(
    model_and_processor: tuple[Any, Any], folder: Path
) -> None:
    model, processor = model_and_processor
    found = batch(folder, processor, [1, 3])
    assert found["image_grid_thw"].tolist() == [[1, 2, 2]]
    width = found["input_ids"].shape[1] - 3  # start, one placeholder, end
    assert found["attention_mask"][:, width:].sum() == 0
    assert (found["labels"][:, width:] == IGNORED).all()
    text_only = ("input_ids", "attention_mask", "labels")
    plain = {name: found[name][:, :width] for name in text_only}

    loss, gradient = loss_and_gradient(model, found)
    expected_loss, expected_gradient = loss_and_gradient(model, plain)

    torch.testing.assert_close(loss, expected_loss)
    assert_equal_gradients(gradient, expected_gradient)
    vision = {name: value for name, value in gradient.items() if ".visual." in name}
    assert vision and all(value.dim() for value in vision.values())  # a gradient everywhere, which is zero
    assert max(float(value.abs().max()) for value in vision.values()) == 0


def test_a_blank_image_masks_whatever_a_batch_has(model_and_processor: tuple[Any, Any]) -> None:
    _, processor = model_and_processor
    renderer = Renderer(processor.tokenizer)
    ids = padded([[5, 6, 7], [8]], processor.tokenizer.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": padded([[1] * 3, [1]], 0), "weights": torch.ones(2, 3)}
    found = append_blank_image(inputs, processor, renderer)
    assert found["input_ids"][0].tolist() == [5, 6, 7, *renderer.image_run(1)]
    assert found["input_ids"][1, 1:].tolist() == [processor.tokenizer.pad_token_id] * 5
    for name in ("attention_mask", "weights"):
        assert found[name].dtype == inputs[name].dtype and found[name][:, 3:].sum() == 0


def test_images_are_opened_batch_by_batch(
    model_and_processor: tuple[Any, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowgen.training.sft import collator

    opened: list[str] = []

    def counting(path: Path) -> Any:
        opened.append(path.name)
        return open_rgb(path)

    monkeypatch.setattr(collator, "open_rgb", counting)
    made = collator_of(folder, model_and_processor[1])
    assert opened == []
    made([{NUMBER: 2}])
    assert opened == ["blue.png"]
