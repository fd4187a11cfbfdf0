"""`hf`: trajectories with images on a tiny Qwen3-VL in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.hf import HfPolicy
from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.agents.records import Message
from knowgen.agents.tokens import TokenSession
from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.records import ImageRef
from tests.helpers.policies import PROMPT, SYSTEM, picture, sampled_ids, trajectory
from tests.helpers.tiny_models import tiny_vlm

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "torchvision", "transformers")), reason="needs knowgen[models]"
)

GREEDY = Sampling(temperature=0.0, max_new_tokens=12)
WARM = Sampling(temperature=0.9, top_p=0.8, max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return tiny_vlm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def policy(folder: Path) -> Iterator[HfPolicy]:
    made = HfPolicy(str(folder), device="cpu", batch_size=4)
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    place = tmp_path_factory.mktemp("pictures")
    return [picture(place, "red"), picture(place, "blue", (40, 200))]


def recomputed(policy: HfPolicy, session: TokenSession, pictures: list[ImageRef], temperature: float) -> list[float]:
    """Return the log-probabilities of the sampled ids from one pass of the model over the whole trajectory."""
    import torch

    vlm = policy.engine._loaded
    ids = [token for segment in session.segments for token in segment.ids]
    seen = vlm.processor.image_processor(images=[image.open() for image in pictures], return_tensors="pt")
    row = torch.tensor([ids])
    kinds = (row == policy.engine.renderer.image).int()
    with torch.no_grad():
        logits = vlm.model(
            input_ids=row, attention_mask=torch.ones_like(row), mm_token_type_ids=kinds,
            pixel_values=seen["pixel_values"], image_grid_thw=seen["image_grid_thw"],
        ).logits  # fmt: skip
    values = torch.log_softmax(logits[0, :-1].float() / temperature, -1).gather(-1, row[0, 1:, None])[:, 0].tolist()
    mask = [segment.sampled for segment in session.segments for _ in segment.ids][1:]
    return [value for value, sampled in zip(values, mask, strict=True) if sampled]


@pytest.mark.parametrize(("sampling", "temperature"), [(GREEDY, 1.0), (WARM, 0.9)])
def test_recomputed_log_probabilities_are_those_of_the_engine(
    policy: HfPolicy, pictures: list[ImageRef], sampling: Sampling, temperature: float
) -> None:
    session = asyncio.run(trajectory(policy, sampling, "t", pictures))
    assert isinstance(session, TokenSession)
    reported = [value for segment in session.segments for value in segment.logprobs or []]
    assert len(reported) == sum(map(len, sampled_ids(session))) > 3
    assert reported == pytest.approx(recomputed(policy, session, pictures, temperature), abs=1e-4)


def test_the_model_sees_the_images(policy: HfPolicy, pictures: list[ImageRef]) -> None:
    async def last_logprobs(image: ImageRef) -> list[float]:
        session = policy.open(GREEDY, "", "t")
        await session.reply([SYSTEM, Message("user", "What is it?", (image,))])
        return session.segments[-1].logprobs or []

    assert pictures[0].path is not None
    green = picture(pictures[0].path.parent, "green")
    first, second = (asyncio.run(last_logprobs(image)) for image in (pictures[0], green))
    assert first != pytest.approx(second, abs=1e-4)


def test_a_trajectory_gets_the_same_ids_alone_and_in_a_batch(policy: HfPolicy, pictures: list[ImageRef]) -> None:
    hot, narrow = Sampling(1.3, max_new_tokens=5, seed=9), Sampling(seed=1, top_p=0.3, max_new_tokens=9)
    settings = [GREEDY, WARM, hot, WARM, narrow]
    shown: list[list[ImageRef]] = [pictures, pictures[:1], [], pictures[1:], [pictures[1], pictures[0]]]

    async def together() -> list[Any]:
        runs = (trajectory(policy, each, "t", images) for each, images in zip(settings, shown, strict=True))
        return await asyncio.gather(*runs)

    policy.engine.batches.clear()
    batched = asyncio.run(together())
    assert max(policy.engine.batches) > 1, "they shared batches"
    for each, images, session in zip(settings, shown, batched, strict=True):
        alone = asyncio.run(trajectory(policy, each, "t", images))
        assert sampled_ids(session) == sampled_ids(alone)
        assert all(len(ids) <= each.max_new_tokens for ids in sampled_ids(session))


def test_another_seed_gives_other_ids_and_none_gives_new_ones(policy: HfPolicy) -> None:
    def ids(seed: int | None) -> list[list[int]]:
        return sampled_ids(asyncio.run(trajectory(policy, Sampling(1.0, 1.0, 16, seed=seed), "t", [])))

    assert ids(1) == ids(1) != ids(2)
    assert ids(None) != ids(None)


def test_vision_tokens_are_never_sampled(policy: HfPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(policy.engine.open())
    model, banned = policy.engine._loaded.model, list(policy.engine.renderer.banned)
    forward = model.lm_head.forward

    def biased(hidden: Any) -> Any:
        scores = forward(hidden)
        scores[..., banned] += 50.0  # without the ban the model would say nothing else
        return scores

    monkeypatch.setattr(model.lm_head, "forward", biased)
    for sampling in (GREEDY, Sampling(1.0, 1.0, 30, seed=1)):
        [ids] = sampled_ids(asyncio.run(trajectory(policy, sampling, "t", [])))
        assert not set(banned) & set(ids)


def test_the_models_own_sampling_settings_do_not_apply(folder: Path, tmp_path: Path, policy: HfPolicy) -> None:
    import json
    import shutil

    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    stated = json.loads((copied / "generation_config.json").read_text())
    stated |= {"do_sample": True, "top_k": 1, "repetition_penalty": 5.0, "temperature": 0.01}
    (copied / "generation_config.json").write_text(json.dumps(stated))
    other = HfPolicy(str(copied), device="cpu")
    assert sampled_ids(asyncio.run(trajectory(other, WARM, "t", []))) == sampled_ids(
        asyncio.run(trajectory(policy, WARM, "t", []))
    )
    asyncio.run(other.close())


def test_an_image_is_preprocessed_once(
    policy: HfPolicy, pictures: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(policy.engine.open())
    processor = policy.engine._loaded.processor
    policy.engine.pixels.clear()
    calls = []
    plain = processor.image_processor

    class Counting:
        merge_size = plain.merge_size
        get_number_of_image_patches = staticmethod(plain.get_number_of_image_patches)

        def __call__(self, images: Any, **settings: Any) -> Any:
            calls.append(len(images))
            return plain(images=images, **settings)

    monkeypatch.setattr(processor, "image_processor", Counting())
    for name in ("a", "b"):
        asyncio.run(trajectory(policy, GREEDY, name, pictures))
    assert calls == [1, 1]


def test_a_batch_that_does_not_fit_is_halved_and_a_row_that_does_not_is_an_error(
    policy: HfPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(policy.engine.open())
    engine = HfEngine(lambda: policy.engine._loaded, batch_size=4, where="policy hf:tiny")
    run, seen = engine._run, []

    def limited(batch: Any) -> Any:
        seen.append(len(batch))
        if len(batch) > 1 or len(batch[0].ids) > 60:
            raise MemoryError
        return run(batch)

    monkeypatch.setattr(engine, "_run", limited)

    async def all_at_once() -> list[Any]:
        short = [TokenSession(engine, GREEDY, str(number)).reply([SYSTEM, PROMPT]) for number in range(3)]
        long = TokenSession(engine, GREEDY, "long").reply([SYSTEM, Message("user", "word " * 60)])
        return await asyncio.gather(*short, long, return_exceptions=True)

    *short, long = asyncio.run(all_at_once())
    assert all(reply.text is not None for reply in short) and max(seen) > 1
    assert isinstance(long, KnowgenError) and "memory ran out" in long.what and "lower max_context" in long.fix
    asyncio.run(engine.close())


def test_an_error_of_the_model_reaches_every_waiting_trajectory(
    policy: HfPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(policy.engine.open())
    engine = HfEngine(lambda: policy.engine._loaded, batch_size=4, where="policy hf:tiny")

    def broken(batch: Any) -> Any:
        raise ValueError("shapes differ")

    monkeypatch.setattr(engine, "_run", broken)

    async def two() -> list[Any]:
        replies = [TokenSession(engine, GREEDY, str(number)).reply([SYSTEM, PROMPT]) for number in range(2)]
        return await asyncio.gather(*replies, return_exceptions=True)

    assert [str(error) for error in asyncio.run(two())] == [
        "policy hf:tiny: the model failed: ValueError: shapes differ"
    ] * 2
    asyncio.run(engine.close())


def test_a_closed_policy_loads_its_model_again(folder: Path) -> None:
    made = HfPolicy(str(folder), device="cpu")
    first = sampled_ids(asyncio.run(trajectory(made, GREEDY, "t", [])))
    asyncio.run(made.close())
    assert made.engine._vlm is None, "its memory is free"
    assert sampled_ids(asyncio.run(trajectory(made, GREEDY, "t", []))) == first
    asyncio.run(made.close())


def test_the_identity_is_the_content_of_the_weights(folder: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "elsewhere"
    shutil.copytree(folder, copied)
    assert HfPolicy(str(copied)).identity == HfPolicy(str(folder), batch_size=2).identity
    assert HfPolicy(str(tiny_vlm(tmp_path / "other", seed=1))).identity != HfPolicy(str(folder)).identity
    assert HfPolicy("Qwen/Qwen3-VL-8B-Instruct").identity["model"] == "Qwen/Qwen3-VL-8B-Instruct"


def test_bad_arguments_and_missing_weights_are_named(tmp_path: Path) -> None:
    for arguments in ({"model": ""}, {"model": "x", "batch_size": 0}, {"model": "x", "dtype": "int8"}):
        with pytest.raises(UsageError):
            HfPolicy(**arguments)
    with pytest.raises(MissingDependencyError, match=r"-g policy\.download=true"):
        asyncio.run(trajectory(HfPolicy("nobody/nothing"), GREEDY, "t", []))
    with pytest.raises((KnowgenError), match="config.json is missing"):
        asyncio.run(trajectory(HfPolicy(str(tmp_path)), GREEDY, "t", []))


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    from tests.helpers.tiny_models import tiny_llava

    other = HfPolicy(str(tiny_llava(tmp_path / "llava")), device="cpu")
    with pytest.raises(ConfigError, match="not a model of the Qwen-VL family"):
        asyncio.run(trajectory(other, GREEDY, "t", []))
