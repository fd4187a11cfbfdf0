"""Generating a run again: what repeats, what was tampered with, what cannot be generated again here."""

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
from knowgen.workflows.reproduce import difference, reproduce
from tests.helpers.text import one_line

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

class Draws(Base):
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
    """The same pixels in other bytes each time."""
    def draw(self, prompt, references, seed):
        buffer = io.BytesIO()
        number = len(list(Path(".").glob("drawn*")))
        Path(f"drawn{number}").touch()
        Image.new("RGB", (48, 32), "teal").save(buffer, "PNG", compress_level=9 * (number % 2))
        return buffer.getvalue()

class Drifts(Base):
    """A few levels off in one pixel with each call."""
    def draw(self, prompt, references, seed):
        picture = Image.new("RGB", (48, 32), (100, 100, 100))
        number = len(list(Path(".").glob("drawn*")))
        Path(f"drawn{number}").touch()
        picture.putpixel((3, 3), (100 + number, 100, 100))
        return picture

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

class Repaints(Base):
    references = True
    def draw(self, prompt, references, seed):
        return noise(prompt + str([picture.getpixel((0, 0)) for picture in references]))

class Shown(Base):
    """Sees the ground truth."""
    privileged = True
    def draw(self, prompt, references, seed):
        return noise(prompt)
    async def generate(self, request):
        return GeneratedImage(request.truth.image.open().resize((48, 32)))
    draw = None
'''


@pytest.fixture
def easel(desk: Path) -> Iterator[Path]:
    """The desk with a file of painters."""
    (desk / "painters.py").write_text(PAINTERS)
    yield desk
    sys.modules.pop("painters", None)


def draw(name: str, *words: str, out: str = "out") -> None:
    assert run(["run", "--task", "small", "--generator", f"painters:{name}", "--out", out, *words]) == 0


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {f"{each['sample_id']}.{each['repeat']}": each["verdict"] for each in found["images"]}


def again(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """Runs `knowgen reproduce --json` and returns what it prints."""
    capsys.readouterr()
    assert run(["reproduce", "out", "--json", *words]) == code
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def picture_of(directory: Path, sample_id: str) -> Path:
    with RunStore.read(directory) as store:
        drawn = store.latest_generation(sample_id, 0)
    assert drawn is not None and drawn.image is not None and drawn.image.path is not None
    return drawn.image.path


@pytest.mark.parametrize("name", ["Draws", "Batches", "Waits", "Shown"])
def test_every_shape_of_generator_is_generated_again(
    easel: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    draw(name, "--repeats", "2", "--seed", "3")
    before = {path: path.stat().st_mtime_ns for path in (easel / "out").rglob("*")}
    found = again(capsys)
    assert set(verdicts(found).values()) == {"same"} and len(found["images"]) == 12
    assert found["compared"] == found["reproduced"] == 12 and found["ok"]
    assert {path: path.stat().st_mtime_ns for path in (easel / "out").rglob("*")} == before, "the run is left alone"


def test_a_part_is_generated_again(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Draws", "-g", "size=40")
    assert list(verdicts(again(capsys, "--limit", "2"))) == ["s0.0", "s1.0"]
    assert list(verdicts(again(capsys, "--ids", "s5,s3"))) == ["s3.0", "s5.0"]
    assert run(["reproduce", "out", "--ids", "s55"]) == 2
    assert "no sample 's55'; did you mean 's5'?" in one_line(capsys.readouterr().err)


def test_a_tampered_image_is_found(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Draws")
    path = picture_of(easel / "out", "s2")
    forged = Image.open(path).convert("RGB")
    forged.putpixel((5, 5), (255, 255, 255))
    forged.save(path)
    picture_of(easel / "out", "s4").unlink()
    found = again(capsys, code=6)
    assert {place: verdict for place, verdict in verdicts(found).items() if verdict != "same"} == {
        "s2.0": "damaged",
        "s4.0": "damaged",
    }
    details = {each["sample_id"]: each["detail"] for each in found["images"]}
    assert details["s2"] == "the stored file was changed; the new one is as recorded"
    assert "is missing" in details["s4"]
    assert not found["ok"] and found["reproduced"] == 4


def test_a_forged_image_with_a_forged_record_is_found_by_generating_it_again(
    easel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw("Draws")
    path = picture_of(easel / "out", "s2")
    forged = Image.open(path).convert("RGB")
    was = forged.getpixel((5, 5))
    assert isinstance(was, tuple)
    forged.putpixel((5, 5), tuple((level + 100) % 256 for level in was))
    forged.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    target = path.parent.parent / digest[:2] / f"{digest}.png"
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    with closing(sqlite3.connect(easel / "out" / "run.sqlite")) as database, database:
        database.execute("update generations set record = replace(record, ?, ?)", (path.stem, digest))
    found = again(capsys, code=6)
    (forgery,) = [each for each in found["images"] if each["verdict"] != "same"]
    assert (forgery["sample_id"], forgery["verdict"]) == ("s2", "differs")
    assert forgery["difference"]["share"] == 1 / (48 * 32)
    assert forgery["difference"]["largest"] in {100, 156}
    assert again(capsys, "--tolerance", "160")["ok"]


def test_a_changed_seed_is_found_in_the_record_and_in_the_specification(
    easel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw("Draws", "--seed", "3")
    shutil.copytree("out", "kept")
    with closing(sqlite3.connect(easel / "out" / "run.sqlite")) as database, database:
        sql = "update generations set record = json_set(record, '$.seed', 4) where sample_id = 's1'"
        database.execute(sql)
    found = again(capsys, code=6)
    assert {place: verdict for place, verdict in verdicts(found).items() if verdict != "same"} == {"s1.0": "seed"}
    assert "the record says seed 4, the specification 3; generated with 3: same" in found["images"][1]["detail"]

    shutil.rmtree("out")
    shutil.copytree("kept", "out")
    manifest = json.loads((easel / "out" / "run.json").read_text())
    manifest["spec"]["seed"] = 4
    (easel / "out" / "run.json").write_text(json.dumps(manifest))
    assert set(verdicts(again(capsys, code=6)).values()) == {"seed"}
    with closing(sqlite3.connect(easel / "out" / "run.sqlite")) as database, database:
        database.execute("update generations set record = json_set(record, '$.seed', 4)")
    assert set(verdicts(again(capsys, code=6)).values()) == {"differs"}, "forged alike in both, it shows in the pixels"


def test_other_bytes_and_small_differences_are_distinguished(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Encodes", "--ids", "s0")
    (picture,) = again(capsys)["images"]
    assert picture["verdict"] == "same pixels" and picture["difference"]["psnr"] is None
    for path in easel.glob("drawn*"):
        path.unlink()
    shutil.rmtree("out")
    draw("Drifts", "--ids", "s0")
    for expected, code in [("within", 0), ("within", 0), ("differs", 6)]:
        (picture,) = again(capsys, code=code)["images"]
        assert picture["verdict"] == expected
        psnr = 10 * math.log10(255**2 * 48 * 32 * 3 / picture["difference"]["largest"] ** 2)
        assert picture["difference"]["psnr"] == pytest.approx(psnr)
    assert run(["reproduce", "out", "--tolerance", "0"]) == 6
    shown = capsys.readouterr().out
    assert "differs" in shown and "0 of 1 images reproduced: 1 differs" in shown and " dB" in shown


def test_failures_then_and_now_are_reported(
    easel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("Breaks")
    monkeypatch.setenv("BROKEN", "1")
    found = again(capsys, code=6)
    assert verdicts(found)["s1.0"] == "failed"
    assert "no weights" in found["images"][1]["detail"]
    shutil.rmtree("out")
    assert run(["run", "--task", "small", "--generator", "painters:Breaks", "--out", "out"]) == 6
    found = again(capsys)
    assert verdicts(found)["s1.0"] == "no image" and found["compared"] == found["reproduced"] == 5
    assert run(["reproduce", "out", "--ids", "s1"]) == 3
    assert "no image to generate again" in capsys.readouterr().err


def test_the_device_and_what_is_not_recorded_can_be_given(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Placed", "--limit", "1", "-g", "url=http://here")
    (easel / "devices.txt").unlink()
    assert again(capsys, "--device", "cuda:7", "-g", "url=http://there")["ok"]
    assert (easel / "devices.txt").read_text() == "cuda:7\n"
    assert run(["reproduce", "out", "-g", "size=20"]) == 2
    assert "-g size differs from the record and would change the result" in one_line(capsys.readouterr().err)
    draw("Draws", out="other")
    capsys.readouterr()
    assert run(["reproduce", "other", "--device", "cuda:7"]) == 2
    assert "has no `setup`" in one_line(capsys.readouterr().err.splitlines()[-1])


def test_what_has_changed_since_is_reported(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Draws", "--limit", "1")
    assert again(capsys)["changes"] == {}
    manifest = json.loads((easel / "out" / "run.json").read_text())
    manifest["versions"]["pillow"] = "9.0.1"
    manifest["spec"]["generator"]["revision"] = "0"
    (easel / "out" / "run.json").write_text(json.dumps(manifest))
    changes = again(capsys)["changes"]
    assert set(changes) == {"pillow", "revision"}
    assert changes["pillow"]["then"] == "9.0.1" and changes["revision"] == {"then": "0", "now": "1"}
    assert run(["reproduce", "out"]) == 0
    assert "changed  pillow: 9.0.1 then, " in capsys.readouterr().out


def test_what_cannot_be_generated_again_is_one_line(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (easel / "mine").mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (number, 9, 9)).save(easel / "mine" / f"s{number}.png")
    assert run(["score", "mine", "--task", "small", "--out", "theirs"]) == 0
    draw("Draws")
    draw("Draws", out="gone")
    manifest = json.loads((easel / "gone" / "run.json").read_text())
    manifest["spec"]["generator"]["name"] = "painters:Gone"
    (easel / "gone" / "run.json").write_text(json.dumps(manifest))
    for words, code, said in [
        (["theirs"], 2, "theirs: its images were taken from 'mine' and not generated here"),
        (["nowhere"], 3, "not a run directory"),
        (["gone"], 2, "has no 'Gone'"),
        (["out", "--limit", "1", "--ids", "s1"], 2, "exclude each other"),
        (["out", "--requests", "gone"], 2, "the run was generated from the prompts of the task"),
    ]:
        capsys.readouterr()
        assert run(["reproduce", *words]) == code, words
        assert said in one_line(capsys.readouterr().err)


def test_a_searching_generator_finds_its_task_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--task", "knowgen_mini", "--generator", "open_book", "--scorer", "pixels", "--limit", "2"]
    assert run([*words, "--out", "out"]) == 0
    found = again(capsys)
    assert found["ok"] and len(found["images"]) == 2


def test_what_an_agent_found_is_generated_again_from_the_agents_answers(
    easel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        {
            "id": f"s{number}",
            "gen_prompt": f"Rewritten {number}.",
            "reference_images": [{"img_id": "IMG_001", "local_path": f"small/truth/s{number}.png"}],
        }
        for number in range(6)
    ]
    (easel / "agent.json").write_text(json.dumps(answers))
    (easel / "other.json").write_text(json.dumps(answers[:5]))
    draw("Repaints", "--requests", "agent.json")
    draw("Repaints", out="plain")
    assert again(capsys, "--requests", "agent.json")["ok"]
    assert picture_of(easel / "out", "s1").stem != picture_of(easel / "plain", "s1").stem
    for words, said in [
        ([], "name them with --requests SRC"),
        (["--requests", "other.json"], "the run was generated from"),
    ]:
        assert run(["reproduce", "out", *words]) == 2
        assert said in one_line(capsys.readouterr().err)
    parts = []
    for number in (1, 2):
        parts.append(f"part{number}")
        draw("Repaints", "--requests", "agent.json", "--shard", f"{number}/2", out=parts[-1])
    assert run(["merge", *parts, "-o", "whole"]) == 0
    with RunStore.read(easel / "whole") as whole, RunStore.read(easel / "out") as one:
        assert {key for key, _ in whole.generations()} == {key for key, _ in one.generations()}
        assert whole.spec == one.spec


def test_a_shard_is_a_run_like_any(easel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("Batches", "--shard", "2/3")
    assert list(verdicts(again(capsys))) == ["s1.0", "s4.0"]
    assert reproduce("out").ok


@given(arrays.arrays(np.int16, (2, 4, 5, 3), elements=st.integers(0, 255)))
def test_differences_are_those_of_a_second_implementation(pair: np.ndarray) -> None:
    first, second = pair
    found = difference(first, second)
    pixels = [(y, x) for y in range(4) for x in range(5)]
    offs = [[abs(int(first[y, x, c]) - int(second[y, x, c])) for c in range(3)] for y, x in pixels]
    flat = [off for pixel in offs for off in pixel]
    assert found.mean == pytest.approx(sum(flat) / len(flat))
    assert found.largest == max(flat)
    assert found.share == pytest.approx(sum(max(pixel) > 0 for pixel in offs) / len(offs))
    if found.psnr is None:
        assert not any(flat)
    else:
        assert found.psnr == pytest.approx(-10 * math.log10(sum((off / 255) ** 2 for off in flat) / len(flat)))
