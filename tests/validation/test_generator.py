"""`knowgen check generator`: a good generator passes, and every kind of problem is reported."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, RefusalError, TransientError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, GroundTruth
from knowgen.core.spec import GeneratorSpec
from knowgen.engine.components import ComponentRef, GeneratorHandle
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.validation.checked_generator import CheckedGenerator
from knowgen.validation.findings import Finding, worst
from knowgen.validation.forecast import duration, forecast
from knowgen.validation.generator import check_generator, neutral_requests
from knowgen.validation.probe import ProbedImage, probed_image

SIZE = (48, 32)


def noise(words: str, seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return an image that depends on words and seed only."""
    dice = random.Random(hashlib.sha256(f"{words}\0{seed}".encode()).digest())
    return Image.frombytes("RGB", size, dice.randbytes(size[0] * size[1] * 3))


class Good:
    """Keeps the contract."""

    revision = "1"

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise(prompt, seed)


class GoodAsync:
    revision = "1"

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        await asyncio.sleep(0.01)
        return GeneratedImage(image=noise(request.prompt, request.seed))


class GoodBatch:
    revision = "1"
    batch_size = 4

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in reversed(requests):
            yield GeneratedImage(image=noise(request.prompt, request.seed), request_id=request.id)


def handle_of(
    kind: type[Any], build: Callable[[], Any] | None = None, component_ref: ComponentRef | None = None
) -> GeneratorHandle:
    traits = capabilities_of(kind)
    return GeneratorHandle(
        GeneratorSpec(name=kind.__name__, revision=traits.revision), traits, build or kind, component_ref
    )


def check(kind: type[Any], **args: Any) -> list[Finding]:
    settings: dict[str, Any] = {"timeout": 5.0, "device": "cpu", **args}
    return check_generator(handle_of(kind), **settings)


def of(findings: list[Finding], name: str) -> list[Finding]:
    matching = [finding for finding in findings if finding.check == name]
    assert matching, [str(finding) for finding in findings]
    return matching


def the(findings: list[Finding], name: str, level: str) -> Finding:
    """Return the finding of a check; there must be one at this level, and none more serious."""
    matching = of(findings, name)
    assert worst(matching) == level, [str(finding) for finding in matching]
    return next(finding for finding in matching if finding.level == level)


# -------------------------------------------------------------------------------------------------- good generators


@pytest.mark.parametrize("kind", [Good, GoodAsync, GoodBatch])
def test_a_good_generator_passes_every_check(kind: type[Any]) -> None:
    findings = check(kind)
    bad = [str(finding) for finding in findings if finding.level != "ok" and finding.check != "fresh process"]
    assert bad == []
    names = [finding.check for finding in findings]
    assert set(names) >= {
        "contract", "revision", "build", "images", "random state", "seeds", "several", "odd prompts", "time", "memory"
    }  # fmt: skip
    assert "48x32" in the(findings, "images", "ok").what
    assert "630 images of 48x32" in the(findings, "time", "ok").what


def test_every_finding_that_is_not_ok_says_how_to_fix_it() -> None:
    for kind in (Good, Stubborn, Forgetful, Exits, Hangs, MixedUp, BreaksOnOdd, ChangesGlobals, Transparent, Blank):
        for finding in check(kind, timeout=0.5):
            assert finding.level == "ok" or finding.fix, finding
            assert "\n" not in str(finding)


SOURCE = """
import hashlib, random
from PIL import Image

class {name}:
    revision = "1"
    def __init__(self, shade=0):
        self.shade = shade
    def draw(self, prompt, references, seed):
        words = {seeded}
        return Image.frombytes("RGB", (32, 32), random.Random(words).randbytes(32 * 32 * 3))
"""


def in_file(folder: Path, name: str, seeded: str) -> GeneratorHandle:
    """Return a generator in a user's own file, as worker processes build it."""
    from knowgen.core import registry

    path = folder / f"{name.lower()}_module.py"
    path.write_text(SOURCE.format(name=name, seeded=seeded))
    resolved = registry.resolve("generators", f"{path}:{name}")
    kind = registry.load(resolved)
    component_ref = ComponentRef("generators", f"{path}:{name}", {"shade": 3})
    return handle_of(kind, lambda: registry.create(resolved, {"shade": 3}), component_ref)


def test_a_fresh_process_generates_the_same(tmp_path: Path) -> None:
    handle = in_file(tmp_path, "Steady", 'f"{prompt} {seed} {self.shade}"')
    findings = check_generator(handle, timeout=60, device="cpu")
    assert worst(findings) == "ok"
    assert "same image" in the(findings, "fresh process", "ok").what


def test_a_generator_that_seeds_with_hash_is_reported(tmp_path: Path) -> None:
    handle = in_file(tmp_path, "Hashed", "hash((prompt, seed))")
    findings = check_generator(handle, timeout=60, device="cpu")
    the(findings, "seeds", "ok")
    assert "hash()" in the(findings, "fresh process", "fail").fix


def test_arguments_that_cannot_be_sent_to_a_process_are_reported() -> None:
    handle = handle_of(Good, component_ref=ComponentRef("generators", "noise", {"search": object()}))
    assert "plain data" in the(check_generator(handle, timeout=5, device="cpu"), "fresh process", "fail").what


# ------------------------------------------------------------------------------------------------------ bad images


class Wrong(Good):
    given: Any = None

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "None"), ("a.png", "cannot be read"), (b"not an image", "format"),
        (Path("nowhere.png"), "cannot be read"), (Image.new("RGB", (1, 1)), "1x1"),
        (np.zeros((8, 8, 3), np.int64), "array of int64"),
        (GeneratedImage(status=GenerationStatus.FAILED, reason="out of order"), "out of order"),
        (GeneratedImage(status=GenerationStatus.NOT_RUN), "not_run"),
        (GeneratedImage(image=Image.new("RGB", SIZE), settings={"x": object()}), "plain data"),
    ],
    ids=lambda value: str(type(value).__name__),
)  # fmt: skip
def test_a_result_that_is_not_an_image_ends_the_check(given: Any, words: str) -> None:
    kind = type("WrongOne", (Wrong,), {"given": given})
    findings = check(kind)
    assert words in the(findings, "images", "fail").what
    assert of(findings, "the rest")[0].what == "was not checked"


class Transparent(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        image = noise(prompt, seed).convert("RGBA")
        image.putpixel((0, 0), (0, 0, 0, 128))
        return image


class Blank(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return Image.new("RGB", SIZE, (len(prompt), seed % 256, 0))


class PromptBlind(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise("always", seed)


def test_transparency_and_blank_images_are_warned_of() -> None:
    assert "transparent pixels are on white" in the(check(Transparent), "images", "warn").what
    assert "one colour" in the(check(Blank), "images", "warn").what


def test_a_generator_that_ignores_the_prompt_fails() -> None:
    the(check(PromptBlind), "prompt", "fail")


# --------------------------------------------------------------------------------------------------- seeds and state


class Stubborn(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise(prompt, 0)


class Forgetful(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise(prompt, time.perf_counter_ns())


class ForgetfulService(GoodAsync):
    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        return GeneratedImage(image=noise(request.prompt, time.perf_counter_ns()))


class Trembling(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        pixels = np.asarray(noise(prompt, seed)).copy()
        pixels[0, 0, 0] ^= time.perf_counter_ns() % 256 | 1
        return Image.fromarray(pixels)


class ChangesGlobals(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        np.random.seed(seed)
        random.seed(seed)
        return noise(prompt, seed)


class ChangesSharedGlobals(ChangesGlobals):
    concurrency = 2


class CountsUp(Good):
    """Gives images that depend on the number of calls before."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if self.seen[-1:] != [prompt]:
            self.seen.append(prompt)
        return noise(prompt, seed + (self.seen[-2:-1] == ["A lighthouse"]) + (len(self.seen) > 4))


def test_generators_that_ignore_or_forget_the_seed_are_reported() -> None:
    assert "another seed gives the same" in the(check(Stubborn), "seeds", "warn").what
    assert "another image" in the(check(Forgetful), "seeds", "fail").what
    assert "another image" in the(check(ForgetfulService), "seeds", "warn").what
    assert "nearly" in the(check(Trembling), "seeds", "warn").what
    the(check(Forgetful), "several", "ok")  # what does not repeat is not compared


def test_changes_of_the_global_random_state_are_reported() -> None:
    finding = the(check(ChangesGlobals), "random state", "warn")
    assert "random" in finding.what and "numpy.random" in finding.what
    assert "threads share" in the(check(ChangesSharedGlobals), "random state", "fail").what


def test_the_check_does_not_change_the_global_random_state() -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), str(np.random.get_state())
    check(Good)
    assert (random.getstate(), str(np.random.get_state())) == before


def test_state_between_calls_is_reported() -> None:
    assert "other images than alone" in the(check(CountsUp), "several", "fail").what


# ------------------------------------------------------------------------------------------------------ several at once


class MixedUp(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request, other in zip(requests, reversed(requests), strict=True):
            yield GeneratedImage(image=noise(other.prompt, other.seed), request_id=request.id)


class Twice(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        yield from super().generate_batch(requests)
        yield from super().generate_batch(requests[:1])


class Drops(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        yield from super().generate_batch(requests[1:] or requests)


class Nameless(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            yield GeneratedImage(image=noise(request.prompt, request.seed))


class Stranger(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        yield from super().generate_batch(requests)
        if len(requests) > 1:
            yield GeneratedImage(image=noise("x", 1), request_id="somebody else")


class OneSeed(GoodBatch):
    """Seeds the batch by its first request, as diffusers does with one torch generator."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        dice = random.Random(requests[0].seed)
        for request in requests:
            yield GeneratedImage(image=noise(request.prompt, dice.getrandbits(30)), request_id=request.id)


class OnlyOne(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        if len(requests) > 1:
            raise RuntimeError("out of memory")
        yield from super().generate_batch(requests)


class Racing(Good):
    """Shares one attribute between threads."""

    concurrency = 4

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        self.prompt = prompt
        time.sleep(0.03)
        return noise(self.prompt, seed)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (MixedUp, "mixed up"), (Twice, "more than one result"), (Drops, "have no result"), (Nameless, "no request_id"),
        (Stranger, "unknown request_id"), (OneSeed, "other images than alone"), (OnlyOne, "out of memory"),
        (Racing, "mixed up"),
    ],
)  # fmt: skip
def test_errors_with_several_requests_at_once_are_reported(kind: type[Any], words: str) -> None:
    assert words in the(check(kind), "several", "fail").what


def test_concurrent_calls_really_run_at_once() -> None:
    class Meeting(Good):
        concurrency = 3
        inside, most = 0, 0
        lock = threading.Lock()

        def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
            with self.lock:
                Meeting.inside += 1
                Meeting.most = max(Meeting.most, Meeting.inside)
            time.sleep(0.05)
            with self.lock:
                Meeting.inside -= 1
            return noise(prompt, seed)

    the(check(Meeting), "several", "ok")
    assert Meeting.most > 1


# ----------------------------------------------------------------------------------------------------- odd prompts


class BreaksOnOdd(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if not prompt:
            raise ValueError("empty")
        if len(prompt) > 10_000:
            raise RefusalError("too long for me")
        return noise(prompt, seed)


class ExitsOnOdd(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if not prompt.isascii():
            raise SystemExit("bye")
        return noise(prompt, seed)


class NothingOnOdd(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Any:
        return noise(prompt, seed) if prompt else None


class Silent(GoodAsync):
    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        if not request.prompt:
            return GeneratedImage(status=GenerationStatus.REFUSED)
        return await super().generate(request)


class BrokenByOdd(BreaksOnOdd):
    broken = False

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        self.broken |= not prompt
        return noise("broken", 0) if self.broken else noise(prompt, seed)


class BatchDies(GoodBatch):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        if not all(request.prompt for request in requests):
            raise ValueError("an empty prompt")
        yield from super().generate_batch(requests)


def test_odd_prompts_give_images_or_failures() -> None:
    findings = of(check(BreaksOnOdd), "odd prompts")
    lines = {finding.level + " " + finding.what for finding in findings}
    assert any(line.startswith("warn an empty prompt raises ValueError: empty") for line in lines)
    assert any("20,000 characters is declined: too long for me" in line for line in lines)
    assert worst(findings) == "warn"


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        (ExitsOnOdd, "fail", "sys.exit"), (NothingOnOdd, "fail", "None"), (Silent, "warn", "without a reason"),
        (BrokenByOdd, "fail", "after them"),
    ],
)  # fmt: skip
def test_errors_on_odd_prompts_are_reported(kind: type[Any], level: str, words: str) -> None:
    assert words in the(check(kind), "odd prompts", level).what


def test_a_prompt_that_makes_its_batch_fail_is_reported() -> None:
    findings = of(check(BatchDies), "odd prompts")
    assert any("makes its whole batch fail" in finding.what for finding in findings if finding.level == "warn")


# ------------------------------------------------------------------------------------------ refusals, transient errors


class RefusesSome(Good):
    """Refuses prompts with a word in them."""

    word = "lighthouse"

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if self.word in prompt:
            raise RefusalError("policy says no")
        return noise(prompt, seed)


class RefusesFirst(RefusesSome):
    word = "kite"


class FailsSomeBatch(GoodBatch):
    """Refuses prompts by a status."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            if "OPEN TODAY" in request.prompt:
                yield GeneratedImage(status=GenerationStatus.FAILED, reason="policy says no", request_id=request.id)
            else:
                yield GeneratedImage(image=noise(request.prompt, request.seed), request_id=request.id)


class BusyAtFirst(GoodAsync):
    """Cannot be reached for two calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        self.calls += 1
        if self.calls <= 2:
            raise TransientError("policy says no, for now")
        return await super().generate(request)


@pytest.mark.parametrize("kind", [RefusesSome, RefusesFirst, FailsSomeBatch, BusyAtFirst])
def test_a_generator_that_declines_some_prompts_is_checked_with_the_others(kind: type[Any]) -> None:
    findings = check(kind)
    assert worst(findings) == "warn"
    assert "policy says no" in the(findings, "images", "warn").what
    assert {"seeds", "several", "odd prompts", "time", "memory"} <= {finding.check for finding in findings}
    assert "the rest" not in [finding.check for finding in findings]
    the(findings, "seeds", "ok")
    the(findings, "several", "ok")


@pytest.mark.parametrize("word", ["", " "])
def test_a_generator_that_declines_every_prompt_fails(word: str) -> None:
    findings = check(type("RefusesAll", (RefusesSome,), {"word": word}))
    assert "none of 3 plain prompts gave an image; the last: policy says no" in the(findings, "images", "fail").what
    assert findings[-1].check == "the rest"


@pytest.mark.parametrize("good", range(1, 12))
def test_a_service_that_fails_after_some_calls_is_warned_of_whenever_that_is(good: int) -> None:
    class Tires(GoodAsync):
        concurrency = 4
        calls = 0

        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            Tires.calls += 1
            if Tires.calls > good:
                raise ConnectionResetError("gone")
            return await super().generate(request)

    findings = check(Tires)
    assert worst(findings) == "warn", [str(finding) for finding in findings]
    assert "time" in [finding.check for finding in findings]


def test_a_fresh_process_that_declines_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "declines_module.py"
    path.write_text(
        "from knowgen.core.errors import RefusalError\n"
        "class Declines:\n"
        "    def draw(self, prompt, references, seed):\n"
        "        raise RefusalError('policy says no')\n"
    )
    findings = check_generator(
        handle_of(Good, component_ref=ComponentRef("generators", f"{path}:Declines")), timeout=60, device="cpu"
    )
    assert "policy says no" in the(findings, "fresh process", "warn").what


# ------------------------------------------------------------------------------------------------- hanging, exiting


class Exits(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        raise SystemExit(3)


class Hangs(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        threading.Event().wait()
        raise AssertionError("never")


class HangsOnSeed(Good):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if seed != 1234:
            threading.Event().wait()
        return noise(prompt, seed)


class HangsAtOnce(Good):
    concurrency = 2

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if not self.lock.acquire(blocking=False):
            threading.Event().wait()
        time.sleep(0.05)
        self.lock.release()
        return noise(prompt, seed)


class HangsForever(GoodAsync):
    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        await asyncio.Event().wait()
        raise AssertionError("never")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (Exits, "images", "sys.exit"), (Hangs, "images", "no result within"),
        (HangsForever, "images", "no result within"),
        (HangsOnSeed, "seeds", "no result within"), (HangsAtOnce, "several", "no result within"),
    ],
)  # fmt: skip
def test_exits_and_hangs_are_reported_and_end_the_check(kind: type[Any], name: str, words: str) -> None:
    findings = check(kind, timeout=0.4)
    assert words in the(findings, name, "fail").what
    assert findings[-1].check == "the rest"


def builder(error: BaseException) -> Callable[[], Any]:
    def build() -> Any:
        raise error

    return build


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("no weights"), "no weights"), (SystemExit(1), "SystemExit"), (ConfigError("needs a key"), "a key")],
)
def test_a_generator_that_cannot_be_built_fails(error: BaseException, words: str) -> None:
    findings = check_generator(handle_of(Good, builder(error)), timeout=5, device="cpu")
    assert words in the(findings, "build", "fail").what


def test_an_object_that_differs_from_its_class_fails() -> None:
    findings = check_generator(handle_of(Good, GoodBatch), timeout=5, device="cpu")
    assert "generate_batch" in the(findings, "build", "fail").what


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("concurrency", -1)])
def test_capabilities_below_one_fail(name: str, value: int) -> None:
    assert name in the(check(type("Odd", (GoodBatch,), {name: value})), "contract", "fail").what


def test_no_revision_is_warned_of() -> None:
    the(check(type("Unversioned", (Good,), {"revision": ""})), "revision", "warn")


# ----------------------------------------------------------------------------------------- references, setup, close


class TakesReferences(Good):
    references = True

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise(prompt + "".join(str(reference.size) for reference in references), seed)


class DeafToReferences(Good):
    references = True


class BadWithReferences(Good):
    references = True

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if references:
            raise ZeroDivisionError("division by zero")
        return noise(prompt, seed)


class BatchReferences(GoodBatch):
    references = True

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            shapes = [reference.open().size for reference in request.references]
            yield GeneratedImage(image=noise(f"{request.prompt}{shapes}", request.seed), request_id=request.id)


def test_ignored_or_failing_references_are_reported() -> None:
    the(check(TakesReferences), "references", "ok")
    the(check(BatchReferences), "references", "ok")
    the(check(DeafToReferences), "references", "warn")
    assert "ZeroDivisionError" in the(check(BadWithReferences), "references", "fail").what
    assert "references" not in [finding.check for finding in check(Good)]


class Careful(Good):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def setup(self, device: str) -> None:
        self.calls.append(f"setup {device}")

    def close(self) -> None:
        self.calls.append("close")


class SetsUpOnce(Careful):
    def setup(self, device: str) -> None:
        if self.calls:
            raise RuntimeError("already there")
        super().setup(device)


class ClosesOnce(Careful):
    def close(self) -> None:
        self.calls.remove("setup cpu")
        self.calls.remove("setup cpu")


class ChangedBySetup(Careful):
    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return noise(prompt, seed + len(self.calls))


class ExitsOnClose(Careful):
    def close(self) -> None:
        raise SystemExit(0)


class HangsOnClose(Careful):
    def close(self) -> None:
        threading.Event().wait()


def test_setup_and_close_are_called_twice() -> None:
    built: list[Careful] = []

    def build() -> Careful:
        built.append(Careful())
        return built[-1]

    findings = check_generator(handle_of(Careful, build), timeout=5, device="cpu")
    assert built[0].calls == ["setup cpu", "setup cpu", "close", "close"] and len(built) == 1
    the(findings, "setup", "ok")
    the(findings, "close", "ok")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (SetsUpOnce, "setup", "already there"), (ChangedBySetup, "setup", "other images"),
        (ClosesOnce, "close", "second call raises ValueError"), (ExitsOnClose, "close", "sys.exit"),
        (HangsOnClose, "close", "no result within"),
    ],
)  # fmt: skip
def test_setup_and_close_that_fail_at_the_second_call_are_reported(kind: type[Any], name: str, words: str) -> None:
    assert words in the(check(kind, timeout=0.5), name, "fail").what


class AsyncClose(GoodAsync):
    """Has a connection that belongs to one event loop, as those of HTTP clients do."""

    loop: Any = None

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        self.loop = self.loop or asyncio.get_running_loop()
        assert self.loop is asyncio.get_running_loop()
        return await super().generate(request)

    async def close(self) -> None:
        assert self.loop is asyncio.get_running_loop()


def test_coroutines_run_in_one_event_loop() -> None:
    findings = check(AsyncClose)
    the(findings, "several", "ok")
    the(findings, "close", "ok")


# -------------------------------------------------------------------------------------------------- truth, forecast


class NeedsTruth(Good):
    privileged = True

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        raise AssertionError("privileged generators take requests")


class NeedsTruthBatch(GoodBatch):
    privileged = True

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            assert request.truth is not None
            yield GeneratedImage(image=noise(request.truth.sample_id, request.seed), request_id=request.id)


def test_a_privileged_generator_is_not_checked_without_ground_truths() -> None:
    findings = check(NeedsTruthBatch)
    assert "leaderboards reject it" in the(findings, "privileged", "warn").what
    assert "ground truth" in of(findings, "the rest")[0].what
    requests = [
        request.model_copy(update={"truth": GroundTruth(sample_id=str(number))})
        for number, request in enumerate(neutral_requests())
    ]
    findings = check(NeedsTruthBatch, requests=requests)
    assert worst([finding for finding in findings if finding.check != "privileged"]) == "ok"
    assert "several" in [finding.check for finding in findings]


def test_the_forecast_is_the_time_of_an_image_times_their_number() -> None:
    """Computed by hand: 36,000 images at 0.4 s are 4 h; noise of 512 x 512 x 3 bytes does not compress."""
    image = probed_image(noise("x", 1, (512, 512)))
    assert isinstance(image, ProbedImage)
    for together, message in ((None, "about 4 h 0 min"), (0.1, "about 60 min")):
        checked = CheckedGenerator(handle_of(Good), neutral_requests(), 5.0, "cpu")
        checked.images, checked.seconds, checked.seconds_together = [image] * 3, [9.0, 0.4, 0.4, 0.5], together
        forecast(checked, 36_000)
        time_said, space_said = (the(checked.notes.findings, name, "ok").what for name in ("time", "memory"))
        assert message in time_said and "512x512" in time_said and "first image 9.00 s" in time_said
        megabytes = int(space_said.partition("images take ")[2].split()[0].replace(",", ""))
        assert megabytes == pytest.approx(36_000 * 512 * 512 * 3 / 2**20, rel=0.01)


def test_memory_that_is_not_released_is_reported() -> None:
    class Hoards(Good):
        retained: list[np.ndarray] = []  # noqa: RUF012

        def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
            self.retained.append(np.ones(40 * 2**20, np.uint8))
            return noise(prompt, seed)

    findings = check(Hoards)
    assert any("grew by" in finding.what for finding in of(findings, "memory") if finding.level == "warn")


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (0.4, "400 ms"),
        (0.00213, "2.13 ms"),
        (2.5, "2.50 s"),
        (42, "42 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_written_in_readable_units(seconds: float, message: str) -> None:
    assert duration(seconds) == message


def test_too_few_or_equal_requests_are_rejected() -> None:
    with pytest.raises(UsageError):
        check(Good, requests=neutral_requests()[:2])
    with pytest.raises(UsageError):
        check(Good, requests=[neutral_requests()[0]] * 3)


def test_each_check_is_reported_before_it_starts() -> None:
    lines: list[str] = []
    check(Good, on_progress=lines.append)
    assert lines[:3] == ["declarations", "build", "first images"] and len(lines) == 12


class Served(GoodAsync):
    """A generator behind a service."""

    warning, error = "", ""

    async def check_service(self) -> str:
        if self.error:
            raise ConfigError(self.error)
        return self.warning

    def service_facts(self) -> str:
        return "a made-up server"


def test_what_the_service_is_and_what_it_warns_of_are_findings() -> None:
    (finding,) = of(check(Served), "service")
    assert (finding.level, finding.what) == ("ok", "a made-up server")
    warned = type("Warned", (Served,), {"warning": "it does not list the model m"})
    assert [each.level for each in of(check(warned), "service")] == ["ok", "warn"]
    findings = check(type("Closed", (Served,), {"error": "the key is wrong"}))
    (finding,) = of(findings, "service")
    assert finding.level == "fail" and "the key is wrong" in finding.what
    assert not [each for each in findings if each.check == "images"]
