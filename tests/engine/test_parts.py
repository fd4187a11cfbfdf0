"""The small parts: images, faults, messages between processes, devices, progress."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core import errors
from knowgen.core.errors import ConfigError, TransientError
from knowgen.core.records import (
    Attempt,
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Sample,
    Usage,
)
from knowgen.engine import devices
from knowgen.engine.executors.protocol import (
    from_line,
    pack_batch,
    pack_error,
    to_line,
    unpack_batch,
    unpack_error,
)
from knowgen.engine.imaging import encode
from knowgen.engine.progress import LINE_SECONDS, Progress, RunCounts
from knowgen.engine.retry import ContractError, describe, is_passing, with_tries
from tests.helpers.engine import Bench, Half, Plain, noise_image, png, quick, scorer_handle


def saved(kind: str, image: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (image or noise_image("x")).save(buffer, kind)
    return buffer.getvalue()


class TestPictures:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_known_formats_stay_as_they_are(self, kind: str, tmp_path: Path) -> None:
        data = saved(kind)
        file = tmp_path / "picture"
        file.write_bytes(data)
        for given in (data, bytearray(data), file):
            assert encode(given) == (data, 48, 32, kind)

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF"])
    def test_other_formats_become_png_of_the_same_pixels(self, kind: str) -> None:
        image = noise_image("x").quantize(16).convert("RGB") if kind == "GIF" else noise_image("x")
        encoded = encode(saved(kind, image))
        assert encoded.format == "PNG"
        with Image.open(io.BytesIO(encoded.data)) as opened:
            assert opened.convert("RGB").tobytes() == image.tobytes()

    def test_half_transparent_red_on_white_is_pink(self) -> None:
        image = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
        with Image.open(io.BytesIO(encode(image).data)) as opened:
            red, green, blue = opened.getpixel((5, 5))  # type: ignore[misc]
        # 255 * 128/255 + 255 * 127/255 = 255; 0 * 128/255 + 255 * 127/255 = 127
        assert (red, green, blue) == (255, 127, 127)

    @pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
    def test_tiny_images_are_refused_in_every_form(self, size: tuple[int, int]) -> None:
        image = Image.new("RGB", size)
        for given in (image, saved("PNG", image)):
            with pytest.raises(ContractError, match=f"{size[0]}x{size[1]} pixels; the smallest side"):
                encode(given)

    def test_sixteen_pixels_are_enough(self) -> None:
        assert encode(Image.new("RGB", (16, 16))).width == 16

    def test_a_truncated_file_does_not_open(self) -> None:
        for kind in ("PNG", "JPEG", "WEBP"):
            data = saved(kind)
            with pytest.raises(ContractError, match="picture"):
                encode(data[: len(data) // 2])

    def test_too_many_pixels_are_refused_before_they_are_decoded(self) -> None:
        with pytest.raises(ContractError, match="at most 100 million"):
            encode(Image.new("1", (20_000, 6_000)))


class TestFaults:
    def tries(self, faults: Sequence[Exception], tries: int = 4) -> tuple[str, list[int]]:
        calls: list[int] = []

        async def call(number: int) -> str:
            calls.append(number)
            if len(calls) <= len(faults):
                raise faults[len(calls) - 1]
            return "done"

        try:
            return asyncio.run(with_tries(call, tries, wait=self.wait)), calls
        except Exception as error:
            return describe(error), calls

    def busy(self) -> TransientError:
        return TransientError("busy", retry_after=0.0)

    @pytest.fixture(autouse=True)
    def _no_waits_yet(self) -> None:
        self.waits: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    def test_passing_faults_are_tried_again(self) -> None:
        assert self.tries([self.busy(), ConnectionResetError(), TimeoutError()]) == ("done", [1, 2, 3, 4])

    def test_other_faults_are_not(self) -> None:
        assert self.tries([ValueError("no")]) == ("ValueError: no", [1])
        assert self.tries([self.busy(), ValueError("no")]) == ("ValueError: no", [1, 2])

    def test_the_last_fault_is_reported_when_the_tries_are_used_up(self) -> None:
        assert self.tries([self.busy()] * 9, tries=3) == ("busy", [1, 2, 3])

    def test_waits_grow_and_are_at_least_what_was_asked(self) -> None:
        self.tries([TransientError("busy")] * 3 + [TransientError("busy", retry_after=99.0)], tries=5)
        first, second, third, fourth = self.waits
        assert 0.5 <= first <= 1.0 <= second <= 1.5 and 2.0 <= third <= 2.5
        assert fourth == 99.0

    def test_a_lost_connection_of_httpx_passes_and_a_bad_status_does_not(self) -> None:
        import httpx

        assert is_passing(httpx.ConnectError("refused"))
        assert is_passing(httpx.ReadTimeout("slow"))
        assert not is_passing(httpx.InvalidURL("what"))

    def test_a_reason_is_one_line(self) -> None:
        assert describe(RuntimeError("a\n  b")) == "RuntimeError: a b"
        assert describe(KeyError()) == "KeyError"
        assert len(describe(RuntimeError("x" * 9999))) < 600


class TestMessages:
    def test_errors_keep_their_kind(self) -> None:
        for kind in (errors.RefusalError, errors.ConfigError, errors.BudgetReachedError, errors.UnscorableError):
            back = unpack_error(from_line(to_line(pack_error(kind("what", where="where", fix="fix")))))
            assert type(back) is kind
            assert str(back) == "where: what; fix"
        paid = Attempt(reply="half a reply", usage=Usage(cost=0.5))
        busy = TransientError("busy", retry_after=3.0, attempts=(paid,))
        passing = unpack_error(from_line(to_line(pack_error(busy))))
        assert isinstance(passing, TransientError) and passing.retry_after == 3.0
        assert passing.attempts == (paid,), "what was paid for is kept"
        assert is_passing(unpack_error(pack_error(ConnectionResetError("gone"))))
        assert describe(unpack_error(pack_error(ValueError("no")))) == "ValueError: no"
        assert describe(unpack_error(pack_error(SystemExit(2)))) == describe(SystemExit(2))

    def test_requests_and_items_come_back_as_they_were_with_their_images(self, tmp_path: Path) -> None:
        file = tmp_path / "p.png"
        file.write_bytes(png("p"))
        image = ImageRef(sha256="0" * 64, width=48, height=32, format="PNG", path=file)
        truth = GroundTruth(sample_id="s", image=image, required_text=("é\u2028",))
        request = GenerationRequest(id="r", prompt="p\n", references=(image,), truth=truth)
        plain = GenerationRequest(id="r", prompt="p")
        generation = Generation(sample_id="s", status=GenerationStatus.OK, image=image)
        item = (Sample(id="s", prompt="p"), truth, generation)
        for batch in ([request, plain], [item]):
            line = to_line({"batch": pack_batch(batch)})
            assert line.count(b"\n") == 1
            assert unpack_batch(from_line(line)["batch"]) == batch
        (back,) = unpack_batch(pack_batch([item]))
        assert back[2].image.open().size == (48, 32)


class TestDevices:
    def test_without_torch_everything_is_on_the_processor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "cuda_count", lambda: 0)
        assert devices.worker_devices(3) == [devices.CPU] * 3
        assert devices.own_device() == "cpu"

    def test_each_worker_sees_one_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "cuda_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert [device.visible for device in devices.worker_devices(3)] == ["0", "1", "0"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        assert [device.visible for device in devices.worker_devices(3)] == ["4", "7", "4"]
        assert {device.name for device in devices.worker_devices(3)} == {"cuda:0"}

    def test_a_run_never_loads_torch_to_choose_a_device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
            monkeypatch.delitem(sys.modules, name)  # other tests of this process may have needed it

        class Sets:
            device = ""

            def setup(self, device: str) -> None:
                self.device = device

            def draw(self, prompt: str, references: object, seed: int) -> Any:
                return noise_image(prompt)

        generator = Sets()
        Bench(tmp_path / "run").run(1, generator)
        assert generator.device in {"cpu", "cuda:0"}
        assert "torch" not in sys.modules


class TestProgress:
    def tally(self) -> RunCounts:
        tally = RunCounts(10, 1, draws=True)
        tally.done = 4
        tally.outcome.generated, tally.outcome.generation_cached, tally.outcome.generation_failed = 2, 1, 1
        return tally

    def test_a_terminal_gets_a_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        progress = Progress(True)
        progress.show(self.tally(), 0.5)
        progress.close()
        text = screen.getvalue()
        for words in ("4/10", "ok 3", "failed 1", "cached 1", "$0.5000", "ETA"):
            assert words in text

    def test_without_a_terminal_a_plain_line_comes_now_and_then(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = [100.0]
        progress = Progress(True, clock=lambda: now[0])
        now[0] += LINE_SECONDS - 1
        progress.show(self.tally(), 0.0)
        assert capsys.readouterr().err == ""
        now[0] += 1
        progress.show(self.tally(), 0.0)
        line = capsys.readouterr().err
        assert line.startswith("4/10 ok 3 failed 1 cached 1 ")
        assert "ETA" in line and "$" not in line and line.count("\n") == 1

    def test_nothing_is_shown_when_it_is_not_wanted(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = Progress(False)
        progress.show(self.tally(), 0.0)
        progress.close()
        assert capsys.readouterr().err == ""


def test_a_run_works_outside_the_main_thread_and_inside_a_running_loop(tmp_path: Path) -> None:
    results: list[Any] = []

    def elsewhere() -> None:
        results.append(Bench(tmp_path / "thread").run(3, Plain(), [scorer_handle(Half())]))

    async def inside() -> None:
        results.append(Bench(tmp_path / "loop").run(3, Plain(), [scorer_handle(Half())]))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    asyncio.run(inside())
    assert [outcome.scored for outcome in results] == [3, 3]


def test_a_plugin_that_asks_for_configuration_when_built_ends_the_run(tmp_path: Path) -> None:
    def build() -> Any:
        raise ConfigError("no such weights", where="mine", fix="fetch them")

    with pytest.raises(ConfigError, match="mine: no such weights; fetch them"):
        Bench(tmp_path / "run").run(3, Plain(), [scorer_handle(Half(), build=build)], quick())


def test_handlers_of_signals_are_restored(tmp_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Bench(tmp_path / "run").run(1, Plain())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
