"""`knowgen reproduce`: deterministic generators, changed files and records, and runs that cannot be reproduced."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from knowgen.cli.main import run
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task
from knowgen.workflows.reproduce import pixel_difference, reproduce
from knowgen.workflows.selection import select_samples
from tests.helpers.text import one_line

pytestmark = pytest.mark.usefixtures("in_process")

PAINTERS = '''
import io, os, random
from pathlib import Path
from PIL import Image
from knowgen import GeneratedImage

def noise(words, size=48):
    return Image.frombytes("RGB", (size, 32), random.Random(words).randbytes(size * 32 * 3))

class Base:
    revision = "1"
    identity_excludes = ("url",)
    def __init__(self, url="", size=48):
        self.url, self.size = url, size

class Synchronous(Base):
    def draw(self, prompt, references, seed):
        return noise(f"{seed} {prompt}", self.size)

class Batches(Base):
    batch_size = 4
    def generate_batch(self, requests):
        for request in reversed(requests):
            yield GeneratedImage(noise(f"{request.seed} {request.prompt}", self.size), request_id=request.id)

class Waits(Base):
    async def generate(self, request):
        return GeneratedImage(noise(f"{request.seed} {request.prompt}", self.size))

class Encodes(Base):
    """Encodes the same pixels in different bytes each time."""
    def draw(self, prompt, references, seed):
        buffer = io.BytesIO()
        number = len(list(Path(".").glob("number*")))
        Path(f"number{number}").touch()
        Image.new("RGB", (48, 32), "teal").save(buffer, "PNG", compress_level=9 * (number % 2))
        return buffer.getvalue()

class Drifts(Base):
    """Changes one pixel by a few levels with each call."""
    def draw(self, prompt, references, seed):
        image = Image.new("RGB", (48, 32), (100, 100, 100))
        number = len(list(Path(".").glob("number*")))
        Path(f"number{number}").touch()
        image.putpixel((3, 3), (100 + number, 100, 100))
        return image

class Placed(Base):
    def setup(self, device):
        self.device = device
    def draw(self, prompt, references, seed):
        Path("devices.txt").open("a").write(self.device + "\\n")
        return noise(prompt)

class Breaks(Base):
    def draw(self, prompt, references, seed):
        if os.environ.get("BROKEN") and "two" in prompt:
            raise ValueError("no weights")
        return noise(prompt)

class ReadsReferences(Base):
    references = True
    def draw(self, prompt, references, seed):
        return noise(prompt + str([image.getpixel((0, 0)) for image in references]))

class Shown(Base):
    """Requires the ground truth."""
    privileged = True
    def draw(self, prompt, references, seed):
        return noise(prompt)
    async def generate(self, request):
        return GeneratedImage(request.truth.image.open().resize((48, 32)))
    draw = None
'''


@pytest.fixture
def generators(workspace: Path) -> Iterator[Path]:
    """Yield the `workspace` folder with a file of generators."""
    (workspace / "painters.py").write_text(PAINTERS)
    yield workspace
    sys.modules.pop("painters", None)


def generate(name: str, *words: str, out: str = "out") -> None:
    assert run(["run", "--task", "small", "--generator", f"painters:{name}", "--out", out, *words]) == 0


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {f"{each['sample_id']}.{each['repeat']}": each["verdict"] for each in result["images"]}


def again(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """Run `knowgen reproduce --json` and return its output."""
    capsys.readouterr()
    assert run(["reproduce", "out", "--json", *words]) == code
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def image_file(directory: Path, sample_id: str) -> Path:
    with RunStore.read(directory) as store:
        generation = store.latest_generation(sample_id, 0)
    assert generation is not None and generation.image is not None and generation.image.path is not None
    return generation.image.path


@pytest.mark.parametrize("name", ["Synchronous", "Batches", "Waits", "Shown"])
def test_every_kind_of_generator_is_reproduced(generators: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    generate(name, "--repeats", "2", "--seed", "3")
    before = {path: path.stat().st_mtime_ns for path in (generators / "out").rglob("*")}
    result = again(capsys)
    assert set(verdicts(result).values()) == {"same"} and len(result["images"]) == 12
    assert result["compared"] == result["reproduced"] == 12 and result["ok"]
    assert {path: path.stat().st_mtime_ns for path in (generators / "out").rglob("*")} == before, (
        "the run is not modified"
    )


def test_a_part_of_a_run_is_reproduced(generators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("Synchronous", "-g", "size=40")
    chosen = [sample.id for sample in select_samples(load_task("small"), limit=2, ids=None)[0]]
    assert list(verdicts(again(capsys, "--limit", "2"))) == [f"{name}.0" for name in chosen]
    assert list(verdicts(again(capsys, "--ids", "s5,s3"))) == ["s3.0", "s5.0"]
    assert run(["reproduce", "out", "--ids", "s55"]) == 2
    assert "no sample 's55'; did you mean 's5'?" in one_line(capsys.readouterr().err)


def test_a_changed_image_file_is_reported(generators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("Synchronous")
    path = image_file(generators / "out", "s2")
    forged = Image.open(path).convert("RGB")
    forged.putpixel((5, 5), (255, 255, 255))
    forged.save(path)
    image_file(generators / "out", "s4").unlink()
    result = again(capsys, code=6)
    assert {place: verdict for place, verdict in verdicts(result).items() if verdict != "same"} == {
        "s2.0": "damaged",
        "s4.0": "damaged",
    }
    details = {each["sample_id"]: each["detail"] for each in result["images"]}
    assert details["s2"] == "the stored file was changed; the new one is as recorded"
    assert "is missing" in details["s4"]
    assert not result["ok"] and result["reproduced"] == 4


def test_an_image_that_was_replaced_with_its_record_is_detected_by_generating_it_again(
    generators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("Synchronous")
    path = image_file(generators / "out", "s2")
    forged = Image.open(path).convert("RGB")
    was = forged.getpixel((5, 5))
    assert isinstance(was, tuple)
    forged.putpixel((5, 5), tuple((level + 100) % 256 for level in was))
    forged.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    target = path.parent.parent / digest[:2] / f"{digest}.png"
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    with closing(sqlite3.connect(generators / "out" / "run.sqlite")) as database, database:
        database.execute("update generations set record = replace(record, ?, ?)", (path.stem, digest))
    result = again(capsys, code=6)
    (forgery,) = [each for each in result["images"] if each["verdict"] != "same"]
    assert (forgery["sample_id"], forgery["verdict"]) == ("s2", "differs")
    assert forgery["difference"]["share"] == 1 / (48 * 32)
    assert forgery["difference"]["largest"] in {100, 156}
    assert again(capsys, "--tolerance", "160")["ok"]


def test_a_changed_seed_is_reported_from_the_record_and_from_the_specification(
    generators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("Synchronous", "--seed", "3")
    shutil.copytree("out", "copy")
    with closing(sqlite3.connect(generators / "out" / "run.sqlite")) as database, database:
        sql = "update generations set record = json_set(record, '$.seed', 4) where sample_id = 's1'"
        database.execute(sql)
    result = again(capsys, code=6)
    assert {place: verdict for place, verdict in verdicts(result).items() if verdict != "same"} == {"s1.0": "seed"}
    assert "the record says seed 4, the specification 3; generated with 3: same" in result["images"][1]["detail"]

    shutil.rmtree("out")
    shutil.copytree("copy", "out")
    manifest = json.loads((generators / "out" / "run.json").read_text())
    manifest["spec"]["seed"] = 4
    (generators / "out" / "run.json").write_text(json.dumps(manifest))
    assert set(verdicts(again(capsys, code=6)).values()) == {"seed"}
    with closing(sqlite3.connect(generators / "out" / "run.sqlite")) as database, database:
        database.execute("update generations set record = json_set(record, '$.seed', 4)")
    assert set(verdicts(again(capsys, code=6)).values()) == {"differs"}, (
        "a seed that is changed in both places changes the pixels"
    )


def test_other_bytes_and_small_differences_are_distinguished(
    generators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("Encodes", "--ids", "s0")
    (compared,) = again(capsys)["images"]
    assert compared["verdict"] == "same pixels" and compared["difference"]["psnr"] is None
    for path in generators.glob("number*"):
        path.unlink()
    shutil.rmtree("out")
    generate("Drifts", "--ids", "s0")
    for expected, code in [("within", 0), ("within", 0), ("differs", 6)]:
        (compared,) = again(capsys, code=code)["images"]
        assert compared["verdict"] == expected
        psnr = 10 * math.log10(255**2 * 48 * 32 * 3 / compared["difference"]["largest"] ** 2)
        assert compared["difference"]["psnr"] == pytest.approx(psnr)
    assert run(["reproduce", "out", "--tolerance", "0"]) == 6
    shown = capsys.readouterr().out
    assert "differs" in shown and "0 of 1 images reproduced: 1 differs" in shown and " dB" in shown


def test_earlier_and_new_failures_are_reported(
    generators: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate("Breaks")
    monkeypatch.setenv("BROKEN", "1")
    result = again(capsys, code=6)
    assert verdicts(result)["s1.0"] == "failed"
    assert "no weights" in result["images"][1]["detail"]
    shutil.rmtree("out")
    assert run(["run", "--task", "small", "--generator", "painters:Breaks", "--out", "out"]) == 6
    result = again(capsys)
    assert verdicts(result)["s1.0"] == "no image" and result["compared"] == result["reproduced"] == 5
    assert run(["reproduce", "out", "--ids", "s1"]) == 3
    assert "no image to generate again" in capsys.readouterr().err


def test_the_device_and_unrecorded_arguments_can_be_given(generators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("Placed", "--limit", "1", "-g", "url=http://here")
    (generators / "devices.txt").unlink()
    assert again(capsys, "--device", "cuda:7", "-g", "url=http://there")["ok"]
    assert (generators / "devices.txt").read_text() == "cuda:7\n"
    assert run(["reproduce", "out", "-g", "size=20"]) == 2
    assert "-g size differs from the record and would change the result" in one_line(capsys.readouterr().err)
    generate("Synchronous", out="other")
    capsys.readouterr()
    assert run(["reproduce", "other", "--device", "cuda:7"]) == 2
    assert "has no `setup`" in one_line(capsys.readouterr().err.splitlines()[-1])


def test_changes_of_the_environment_are_reported(generators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("Synchronous", "--limit", "1")
    assert again(capsys)["changes"] == {}
    manifest = json.loads((generators / "out" / "run.json").read_text())
    manifest["versions"]["pillow"] = "9.0.1"
    manifest["spec"]["generator"]["revision"] = "0"
    (generators / "out" / "run.json").write_text(json.dumps(manifest))
    changes = again(capsys)["changes"]
    assert set(changes) == {"pillow", "revision"}
    assert changes["pillow"]["then"] == "9.0.1" and changes["revision"] == {"then": "0", "now": "1"}
    assert run(["reproduce", "out"]) == 0
    assert "changed  pillow: 9.0.1 then, " in capsys.readouterr().out


def test_a_run_that_cannot_be_reproduced_is_one_error_line(
    generators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (generators / "mine").mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(generators / "mine" / f"s{number}.png")
    assert run(["score", "mine", "--task", "small", "--out", "theirs"]) == 0
    generate("Synchronous")
    generate("Synchronous", out="gone")
    manifest = json.loads((generators / "gone" / "run.json").read_text())
    manifest["spec"]["generator"]["name"] = "painters:Gone"
    (generators / "gone" / "run.json").write_text(json.dumps(manifest))
    for words, code, message in [
        (["theirs"], 2, "theirs: its images were taken from 'mine' and not generated here"),
        (["nowhere"], 3, "not a run directory"),
        (["gone"], 2, "has no 'Gone'"),
        (["out", "--limit", "1", "--ids", "s1"], 2, "exclude each other"),
        (["out", "--requests", "gone"], 2, "the run was generated from the prompts of the task"),
    ]:
        capsys.readouterr()
        assert run(["reproduce", *words]) == code, words
        assert message in one_line(capsys.readouterr().err)


def test_a_generator_with_search_uses_the_recorded_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--task", "knowgen_mini", "--generator", "open_book", "--scorer", "pixels", "--limit", "2"]
    assert run([*words, "--out", "out"]) == 0
    result = again(capsys)
    assert result["ok"] and len(result["images"]) == 2


NOTES = """
from PIL import Image

from knowgen.plugin import GeneratedImage, Hit, Page

class Notes:
    async def search(self, query, k=5):
        return [Hit(title="A note", url="note:1")][:k]
    async def image_search(self, query, k=5):
        return []
    async def open(self, url):
        return Page(url=url, title="A note", text="Nothing of use.")

class LooksUp:
    wants_search = True
    revision = "1"
    def __init__(self, search):
        self.search = search
    async def generate(self, request):
        hits = await self.search.search(request.prompt, 1)
        return GeneratedImage(image=Image.new("RGB", (32, 32), (len(hits), 0, 0)))
"""


def test_a_run_with_an_own_search_backend_is_not_reproduced_with_the_backend_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.py").write_text(NOTES)
    own = ["-g", "search=notes.py:Notes"]
    generator = ["--generator", "notes.py:LooksUp"]
    words = ["run", "--task", "knowgen_mini", *generator, "--scorer", "pixels", "--limit", "2"]
    assert run([*words, *own, "--out", "out"]) == 0
    capsys.readouterr()
    assert run(["reproduce", "out"]) == 2
    message = one_line(capsys.readouterr().err)
    assert "searched with notes.py:Notes@" in message and "-g search=NAME" in message
    result = again(capsys, *own)
    assert result["ok"] and result["changes"] == {}


def test_a_run_from_agent_answers_is_reproduced_from_the_same_answers(
    generators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        {
            "id": f"s{number}",
            "gen_prompt": f"Rewritten {number}.",
            "reference_images": [{"img_id": "IMG_001", "local_path": f"small/truth/s{number}.png"}],
        }
        for number in range(6)
    ]
    (generators / "agent.json").write_text(json.dumps(answers))
    (generators / "other.json").write_text(json.dumps(answers[:5]))
    generate("ReadsReferences", "--requests", "agent.json")
    generate("ReadsReferences", out="plain")
    assert again(capsys, "--requests", "agent.json")["ok"]
    assert image_file(generators / "out", "s1").stem != image_file(generators / "plain", "s1").stem
    for words, message in [
        ([], "name them with --requests SRC"),
        (["--requests", "other.json"], "the run was generated from"),
    ]:
        assert run(["reproduce", "out", *words]) == 2
        assert message in one_line(capsys.readouterr().err)
    parts = []
    for number in (1, 2):
        parts.append(f"part{number}")
        generate("ReadsReferences", "--requests", "agent.json", "--shard", f"{number}/2", out=parts[-1])
    assert run(["merge", *parts, "-o", "whole"]) == 0
    with RunStore.read(generators / "whole") as whole, RunStore.read(generators / "out") as one:
        assert {key for key, _ in whole.generations()} == {key for key, _ in one.generations()}
        assert whole.spec == one.spec


def test_a_shard_can_be_reproduced(generators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate("Batches", "--shard", "2/3")
    assert list(verdicts(again(capsys))) == ["s1.0", "s4.0"]
    assert reproduce("out").ok


@given(arrays.arrays(np.int16, (2, 4, 5, 3), elements=st.integers(0, 255)))
def test_differences_are_those_of_a_second_implementation(pair: np.ndarray) -> None:
    first, second = pair
    result = pixel_difference(first, second)
    pixels = [(y, x) for y in range(4) for x in range(5)]
    offs = [[abs(int(first[y, x, c]) - int(second[y, x, c])) for c in range(3)] for y, x in pixels]
    flat = [off for pixel in offs for off in pixel]
    assert result.mean == pytest.approx(sum(flat) / len(flat))
    assert result.largest == max(flat)
    assert result.share == pytest.approx(sum(max(pixel) > 0 for pixel in offs) / len(offs))
    if result.psnr is None:
        assert not any(flat)
    else:
        assert result.psnr == pytest.approx(-10 * math.log10(sum((off / 255) ** 2 for off in flat) / len(flat)))
