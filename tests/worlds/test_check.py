"""The scorer world_check: scores of images, and results for images that cannot be scored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from knowgen.core.errors import MissingDependencyError
from knowgen.core.records import (
    DIMENSIONS,
    TEXT,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Sample,
    ScoreStatus,
)
from knowgen.scorers.contract import scorer_capabilities
from knowgen.worlds.checker import WorldCheck
from knowgen.worlds.checker import scorer as scorer_module
from tests.helpers.check_cases import make_case, save, score

FULL = dict.fromkeys(DIMENSIONS, 1.0)


def test_the_scorer_declares_its_needs_dimensions_and_version() -> None:
    traits = scorer_capabilities(WorldCheck)
    assert traits.shape == "score_batch"
    assert traits.needs == {"image", "required_text", "subjects"}
    assert traits.dimensions == DIMENSIONS
    assert traits.note == "world check, not a VLM judge"
    assert traits.version


def test_importing_the_checker_loads_no_heavy_library() -> None:
    code = (
        "import sys, knowgen.worlds.checker as c; c.WorldCheck;"
        "print([m for m in ('cv2', 'rapidocr', 'onnxruntime', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", [0, 5])
def test_correct_images_get_full_scores(seed: int, tmp_path: Path) -> None:
    case = make_case(seed, subjects=1 + seed % 3)
    result = score(case, case.draw(), tmp_path)
    assert result.strict.values == FULL, result.strict.rationale
    assert result.status == result.strict.status == ScoreStatus.OK
    assert result.strict.na == ()
    assert result.strict.rationale.endswith("Nothing missed.")
    assert json.loads(json.dumps(result.details)) == result.details
    assert {line["text"] for line in result.details["lines"]} == set(case.texts)
    assert all(0 <= edge <= 1 for line in result.details["lines"] for edge in line["box"])


def test_faults_lower_their_dimension_and_are_named_in_the_rationale(tmp_path: Path) -> None:
    case = make_case(4)
    assert case.texts == ("Oruvane", "1931")
    result = score(case, case.draw(case.distractors, ("Oruvane", "1937")), tmp_path)
    assert result.strict.values == {**FULL, "visual_correctness": 0.5, TEXT: 0.5}
    assert '"1931" not found' in result.strict.rationale
    assert "Thing 0 drawn as its look-alike" in result.strict.rationale


def test_a_wrong_scene_lowers_faithfulness(tmp_path: Path) -> None:
    case = make_case(3)
    result = score(case, case.draw(scene="desert"), tmp_path)
    assert result.strict.values == {**FULL, "faithfulness": 0.0}
    assert result.details["scene"]["nearest"] == "desert"


def test_text_accuracy_is_not_applicable_if_no_text_is_required(tmp_path: Path) -> None:
    case = make_case(6, text=False)
    bare = score(case, case.draw(), tmp_path)
    assert bare.strict.values == {name: 1.0 for name in DIMENSIONS if name != TEXT}
    assert bare.strict.na == (TEXT,)
    lettered = score(case, case.draw(texts=("Oruvane",)), tmp_path)
    assert lettered.strict.values["faithfulness"] == 0.5
    assert TEXT not in lettered.strict.values


def test_letters_read_on_a_subject_are_not_lettering(tmp_path: Path) -> None:
    """Letters read on a recognised subject belong to it; the same words on the background are lettering."""
    case = make_case(6, text=False)
    image = case.draw()
    left, top, right, bottom = score(case, image, tmp_path).details["subjects"][0]["box"]
    font = ImageFont.load_default(22)
    middle = ((left + right) / 2 * image.width, (top + bottom) / 2 * image.height)
    for place, value in ((middle, 1.0), ((middle[0] + (384 if middle[0] < 384 else -384), 60.0), 0.5)):
        marked = image.copy()
        ImageDraw.Draw(marked).text(place, "Yotana", "black", font, "mm", stroke_width=3, stroke_fill="white")
        result = score(case, marked, tmp_path)
        assert result.details["lines"], "the mark was not read at all"
        assert result.strict.values["faithfulness"] == value


def test_noise_and_blank_images_get_almost_no_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    case, bare = make_case(1), make_case(2, text=False)
    images = [
        Image.fromarray(rng.integers(0, 256, (512, 768, 3), np.uint8)),
        Image.new("RGB", (768, 512), "white"),
        Image.new("RGB", (768, 512)),
        Image.new("RGB", (1, 1)),
    ]
    for image in images:
        assert set(score(case, image, tmp_path).strict.values.values()) == {0.0}
    assert set(score(bare, images[0], tmp_path).strict.values.values()) == {0.0}


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_images_of_other_modes_are_scored(mode: str, tmp_path: Path) -> None:
    case = make_case(8)
    image = case.draw()
    if mode == "RGBA":
        image.putalpha(255)
    changed = image.quantize(200, dither=Image.Dither.NONE) if mode == "P" else image.convert(mode)
    result = score(case, changed, tmp_path).strict.values
    assert result[TEXT] == 1
    if mode != "L":
        assert result == FULL


def test_transparent_parts_count_as_white(tmp_path: Path) -> None:
    case = make_case(8)
    image = case.draw()
    image.putalpha(0)
    assert set(score(case, image, tmp_path).strict.values.values()) == {0.0}


def test_large_images_are_scored(tmp_path: Path) -> None:
    case = make_case(9, subjects=2)
    large = case.draw().resize((2048, 1365), Image.Resampling.LANCZOS)
    assert score(case, large, tmp_path).strict.values == FULL


@pytest.mark.parametrize("seed", [0, 3])
def test_blurred_lettering_is_still_lettering(seed: int, tmp_path: Path) -> None:
    case = make_case(seed)
    image = case.draw()
    values = score(case, image.filter(ImageFilter.GaussianBlur(min(image.size) / 160)), tmp_path).strict.values
    assert values["faithfulness"] == 1.0 and values["aesthetics"] < 1.0


def test_the_same_image_gets_the_same_score_twice(tmp_path: Path) -> None:
    case = make_case(10, subjects=2)
    ref = save(case.draw(case.distractors), tmp_path)
    first, second = (score(case, ref, tmp_path).model_copy(update={"seconds": 0.0}) for _ in range(2))
    assert first == second


def test_an_unreadable_image_gives_a_failed_score_with_a_reason(tmp_path: Path) -> None:
    case = make_case(0)
    whole = save(case.draw(), tmp_path)
    assert whole.path is not None
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole.path.read_bytes()[:5000])
    for path in (broken, tmp_path / "gone.png", None):
        result = score(case, whole.model_copy(update={"path": path}), tmp_path)
        assert result.status == result.strict.status == ScoreStatus.FAILED
        assert result.strict.reason.startswith("the generated image does not open: ")
        assert result.strict.values == {}
        assert result.image == whole.sha256


def status_and_reason(truth: GroundTruth, image: ImageRef | None) -> tuple[ScoreStatus, str]:
    generation = Generation(sample_id="a", status=GenerationStatus.OK, image=image)
    (result,) = WorldCheck().score_batch([(Sample(id="a", prompt="p"), truth, generation)])
    return result.status, result.strict.reason


def test_samples_of_other_tasks_are_not_applicable(tmp_path: Path) -> None:
    ref = save(Image.new("RGB", (8, 8)), tmp_path)
    plain = GroundTruth(sample_id="a", required_text=("x",))
    assert status_and_reason(plain, ref) == (ScoreStatus.NOT_APPLICABLE, "not available: subjects")
    world = make_case(0).truth
    status, reason = status_and_reason(world.model_copy(update={"extra": {}}), ref)
    assert status == ScoreStatus.FAILED
    assert "worlds only" in reason
    status, reason = status_and_reason(world.model_copy(update={"subjects": ({"name": "Oruvane"},)}), ref)
    assert status == ScoreStatus.FAILED
    assert "'Oruvane' has no look" in reason


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "find_spec", lambda name: None if name == "rapidocr" else object())
    with pytest.raises(MissingDependencyError, match="pip install rapidocr"):
        WorldCheck()
