"""Compiling: few graphs, made before the first image, and never silently undone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.generators.diffusers import compilation as compilation_module
from knowgen.generators.diffusers.compilation import Compilation, parse_compile
from knowgen.generators.diffusers.generator import DiffusersGenerator
from tests.helpers import tiny_pipelines

EAGER = {"scope": "whole", "backend": "eager", "dynamic": False}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    import torch

    torch.compiler.reset()
    yield
    torch.compiler.reset()


def model() -> Any:
    """Return a model that needs a graph for each number of rows."""
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())


def run(compiled: Compilation, network: Any, rows: int) -> Any:
    import torch

    return compiled.run((), rows, lambda: network(torch.ones(rows, 4)))


def test_each_size_of_a_batch_is_compiled_once() -> None:
    network = model()
    compiled = Compilation(network, EAGER, "generator")
    for rows in (2, 4, 2, 4, 4):
        run(compiled, network, rows)
    assert compiled.graphs == 2
    assert compiled.recorded() == {"compile": EAGER, "compiled_graphs": 2}


def test_a_smaller_batch_is_filled_up_to_a_size_that_was_compiled() -> None:
    network = model()
    compiled = Compilation(network, EAGER, "generator")
    assert compiled.batch_for((), 3) == 3 and not compiled.knows((), 3)
    run(compiled, network, 8)
    run(compiled, network, 4)
    assert [compiled.batch_for((), count) for count in (1, 4, 5, 9)] == [4, 4, 8, 9]
    assert compiled.batch_for((64, 64), 3) == 3, "another shape is compiled by itself"


def test_a_batch_is_not_filled_up_to_a_size_for_which_memory_ran_out() -> None:
    network = model()
    compiled = Compilation(network, EAGER, "generator")
    run(compiled, network, 8)

    def out_of_memory() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        compiled.run((), 8, out_of_memory)
    assert compiled.batch_for((), 4) == 4


def test_more_graphs_than_allowed_are_said_and_nothing_is_compiled_from_then_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch itself goes on without its compiler, and says so only in its own log."""
    monkeypatch.setattr(compilation_module, "MAX_GRAPHS", 3)
    network = model()
    compiled = Compilation(network, EAGER, "generator x")
    plain = model()
    plain.load_state_dict(network.state_dict())
    import torch

    with torch.no_grad():
        results = [run(compiled, network, rows) for rows in range(1, 7)]
        assert all(torch.equal(result, plain(torch.ones(rows, 4))) for rows, result in enumerate(results, start=1))
    assert compiled.given_up == "more than 3 graphs were needed" and compiled.graphs == 3
    assert compiled.recorded()["compile"]["given_up"] == compiled.given_up
    messages = [record.getMessage() for record in caplog.records if record.name == "knowgen.generators"]
    assert len(messages) == 1 and messages[0].startswith("generator x: more than 3 graphs were needed")
    assert compiled.batch_for((), 3) == 3


def test_a_compiler_that_fails_is_an_error_before_the_first_image() -> None:
    network = model()

    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler found")

    compiled = Compilation(network, {"scope": "whole", "backend": broken}, "generator")
    with pytest.raises(ConfigError, match="cannot be compiled: .*no compiler found.*leave out compile"):
        compiled.warm_up(lambda: run(compiled, network, 2), 2)


@pytest.mark.parametrize("value", ["fast", {"scope": "half"}, {"speed": 1}])
def test_an_unknown_way_to_compile_is_an_error(value: Any) -> None:
    with pytest.raises(UsageError, match="compile=.* is unknown; give true, false, regional"):
        parse_compile(value, "generator")


@pytest.mark.slow
def test_a_class_without_repeated_blocks_is_not_compiled_by_region(tmp_path: Path) -> None:
    generator = DiffusersGenerator(str(tiny_pipelines.sd3(tmp_path / "sd3")), compile="regional")
    with pytest.raises(ConfigError, match="SD3Transformer2DModel names no repeated blocks.*give compile=true"):
        generator.setup("cpu")


# --- whole pipelines -------------------------------------------------------------------------------------------------

PROMPTS = ["a", "a lamp on a table", "two ships", "x y z", "a much longer prompt about a tower", "b", "c"]


def generated(generator: DiffusersGenerator, prompts: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    requests = [GenerationRequest(id=f"{prompt}", prompt=prompt, seed=1) for prompt in prompts]
    results = list(generator.generate_batch(requests))
    assert {result.status for result in results} == {GenerationStatus.OK}, results[0].reason
    images = {result.request_id: np.asarray(result.image).astype(int) for result in results}
    return images, [result.settings for result in results]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scope"), [("flux", "whole"), ("flux", "regional"), ("qwen_image", "regional")])
def test_prompts_of_all_lengths_and_batches_need_few_graphs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, scope: str
) -> None:
    """The whole of Qwen-Image is compiled again for each length of a batch with a mask, so that it is not listed."""
    folder = getattr(tiny_pipelines, name)(tmp_path / name)
    guided = {"guidance": 4.0, "negative_prompt": " "} if name == "qwen_image" else {}
    args: dict[str, Any] = {"size": "32x32", "steps": 2, "batch": 4, **guided}
    plain = DiffusersGenerator(str(folder), **args)
    plain.setup("cpu")
    expected, _ = generated(plain, PROMPTS)
    caplog.set_level(logging.WARNING, "knowgen.generators")
    compiled = DiffusersGenerator(str(folder), compile={"scope": scope, "backend": "eager"}, **args)
    compiled.setup("cpu")
    said = [record.getMessage() for record in caplog.records if record.name == "knowgen.generators"]
    assert "compiled for batches of 4" in said[0] and "compiled in" in said[1]
    images, settings = generated(compiled, PROMPTS)
    for count in (1, 2, 3):
        generated(compiled, PROMPTS[:count])
    assert max(int(np.abs(images[prompt] - expected[prompt]).max()) for prompt in PROMPTS) <= 1
    assert {entry["compile"]["scope"] for entry in settings} == {scope}
    assert not any("given_up" in entry["compile"] for entry in settings)
    _, last = generated(compiled, PROMPTS)
    assert last[-1]["compiled_graphs"] == settings[0]["compiled_graphs"], "nothing was compiled after the warm-up"
    assert last[-1]["batch"] == 3, "a batch that was filled up is recorded with its own size"


@pytest.mark.slow
def test_a_model_that_needs_too_many_graphs_goes_on_and_its_images_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compilation_module, "MAX_GRAPHS", 6)
    folder = tiny_pipelines.qwen_image(tmp_path / "qwen_image")
    args: dict[str, Any] = {"size": "32x32", "steps": 2, "batch": 4, "guidance": 4.0, "negative_prompt": " "}
    compiled = DiffusersGenerator(str(folder), compile={"scope": "whole", "backend": "eager"}, **args)
    settings: list[dict[str, Any]] = []
    for number in range(4):
        prompts = ["x" * (number + 1), "y" * (3 * number + 5), "z" * (number + 20), "w" * (number + 9)]
        settings += generated(compiled, prompts)[1]
    assert "given_up" not in settings[0]["compile"]
    assert settings[-1]["compile"]["given_up"] == "more than 6 graphs were needed"
    assert "the model goes on without being compiled. Give compile=regional" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["first_block", "taylorseer"])
def test_a_cache_works_in_a_compiled_model(tmp_path: Path, cache: str) -> None:
    folder = tiny_pipelines.flux(tmp_path / "flux")
    args: dict[str, Any] = {"size": "32x32", "steps": 6, "batch": 1, "cache": cache}
    plain = DiffusersGenerator(str(folder), **args)
    compiled = DiffusersGenerator(str(folder), compile={"scope": "regional", "backend": "eager"}, **args)
    first, _ = generated(plain, PROMPTS[:2])
    second, _ = generated(compiled, PROMPTS[:2])
    assert max(int(np.abs(first[prompt] - second[prompt]).max()) for prompt in first) <= 1
