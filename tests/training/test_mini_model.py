"""The small model for training on a CPU: its size, its vocabulary, its chat format, and that it survives saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.prompts.texts import agent_texts
from knowgen.agents.protocol import observation, written_answer, written_call
from knowgen.agents.records import SeenImage
from knowgen.agents.rendering import Renderer, image_token_count
from knowgen.agents.tools.image_search import listing
from knowgen.core.records import ImageRef
from knowgen.tasks.things_words import COLOURS, PICTURE_URL, SYLLABLES

pytest.importorskip("torch")

from knowgen.training.mini_model import DATE, build_mini, phrases


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any]:
    return build_mini(0)


@pytest.fixture(scope="module")
def renderer(mini: tuple[Any, Any]) -> Renderer:
    return Renderer(mini[1].tokenizer, "mini:0")


def test_it_has_about_217_thousand_weights(mini: tuple[Any, Any]) -> None:
    assert 210_000 < sum(weight.numel() for weight in mini[0].parameters()) < 225_000


def test_the_seed_decides_the_weights(mini: tuple[Any, Any]) -> None:
    import torch

    state = torch.random.get_rng_state()
    again, other = build_mini(0)[0].state_dict(), build_mini(1)[0].state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in mini[0].state_dict().items())
    assert any(not torch.equal(weight, other[name]) for name, weight in again.items())
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's randomness is left as it was"


def test_no_linear_layer_has_the_scale_of_a_large_model(mini: tuple[Any, Any]) -> None:
    for name, weight in mini[0].named_parameters():
        if weight.dim() >= 2 and "embed" not in name:
            assert float(weight.detach().std()) * weight[0].numel() ** 0.5 == pytest.approx(1.0, abs=0.1), name
    assert float(mini[0].model.language_model.embed_tokens.weight.detach().std()) == pytest.approx(0.5, abs=0.02)


def test_its_chat_template_is_the_one_that_the_agent_renders(renderer: Renderer) -> None:
    renderer.check_template("mini:0")


def test_its_template_places_images_as_the_agent_does(mini: tuple[Any, Any], renderer: Renderer) -> None:
    from PIL import Image

    processor = mini[1]
    picture = Image.new("RGB", (64, 64), "red")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    shown = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    count = image_token_count(processor.image_processor, 64, 64)
    assert count == 4
    assert list(shown["input_ids"][0]) == renderer.message("user", "What is it?", [count]) + renderer.reply_header()


@pytest.mark.parametrize("colour", COLOURS)
def test_replies_of_the_protocol_have_about_ten_tokens(renderer: Renderer, colour: str) -> None:
    replies = (
        written_call("image_search", query="ko ra"),
        written_answer(f"{colour} ko ra", "IMG_001"),
        written_answer(f"{colour} ko ra"),
    )
    for reply in replies:
        ids = renderer.encode(reply)
        assert len(ids) <= 10
        assert renderer.decode(ids) == reply


def test_an_observation_has_few_tokens_besides_its_image(renderer: Renderer) -> None:
    picture = SeenImage(
        id="IMG_001", image=ImageRef(sha256="ab", width=64, height=64, format="PNG"), title="ko ra", url=PICTURE_URL
    )
    text = observation([listing("ko ra", [picture])])
    assert len(renderer.message("user", text, [4])) <= 20
    assert len(renderer.message("system", agent_texts("short", [], calls=2).system + DATE)) <= 6


def test_every_syllable_and_colour_is_one_token(renderer: Renderer) -> None:
    for word in (*COLOURS, *SYLLABLES, *(f" {syllable}" for syllable in SYLLABLES)):
        assert len(renderer.encode(word)) == 1, word


def test_any_other_text_survives_byte_by_byte(renderer: Renderer) -> None:
    text = "Ein Bild, größer als 5 €: 图片\n\n<tool_call>"
    assert renderer.decode(renderer.encode(text)) == text


def test_no_phrase_contains_what_changes() -> None:
    assert not any("~" in phrase or "<" in phrase for phrase in phrases())


def test_it_loads_as_any_model_does(tmp_path: Path, mini: tuple[Any, Any]) -> None:
    import torch

    from knowgen.local_models.vlm import ModelSource, load

    model, processor = mini
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load(ModelSource(str(tmp_path), dtype="float32"), "cpu")
    reply = written_answer("red ko ra", "IMG_001")
    assert loaded.processor.tokenizer.encode(reply) == processor.tokenizer.encode(reply)
    Renderer(loaded.processor.tokenizer).check_template("loaded")
    assert all(torch.equal(weight, loaded.model.state_dict()[name]) for name, weight in model.state_dict().items())
    assert image_token_count(loaded.processor.image_processor, 64, 64) == 4
