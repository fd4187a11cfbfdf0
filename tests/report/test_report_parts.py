"""The parts of a report that need no browser: numbers, marks, data in scripts, images, the folder."""

from __future__ import annotations

import hashlib
import json
import math
import re
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import DIMENSIONS, GenerationStatus, ImageRef, ParsedScore, Row, ScoreStatus
from knowgen.report.details import as_text, recognised
from knowgen.report.folder import MARKER
from knowgen.report.gallery import read_cell
from knowgen.report.headline import answer, name_in_sentence
from knowgen.report.html import write_report
from knowgen.report.image_files import LARGE, SMALL, make_images
from knowgen.report.numbers import duration, money, number, position, share
from knowgen.report.page import environment
from knowgen.report.script_json import as_script_json
from knowgen.report.view import COLOURS, SHAPES, ReportRun, marks, systems_of, views_of
from knowgen.stats.protocol import OFFICIAL, STRICT
from tests.helpers.report_runs import RunMaker

REPORT = files("knowgen.report")
SOURCES = sorted(
    Path(str(folder)) / path.name
    for folder in (REPORT.joinpath("static"), REPORT.joinpath("templates"))
    for path in folder.iterdir()
)


def test_numbers_are_rounded_alike_everywhere() -> None:
    assert [number(value) for value in (0.5, 1.0, 0.12345, None)] == ["0.500", "1.000", "0.123", "–"]
    assert [number(value, signed=True) for value in (0.2, -0.2, -0.0001)] == ["+0.200", "−0.200", "0.000"]


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(48, 48, "100 %"), (0, 48, "0 %"), (9999, 10000, "99.9 %"), (1, 10000, "0.1 %"), (1, 2, "50 %"), (0, 0, "–")],
)
def test_a_share_is_0_or_100_percent_only_if_exact(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words


def test_money_and_time_have_readable_units() -> None:
    assert [money(cost) for cost in (None, 0.0, 0.0123, 12.5, 1234.5)] == ["–", "$0", "$0.0123", "$12.50", "$1,234.50"]
    seconds = (0.414, 38.2, 700.0, 11100.0, None)
    assert [duration(value) for value in seconds] == ["0.41 s", "38 s", "12 min", "3 h 05 min", "–"]


@given(st.floats(allow_nan=False))
def test_a_position_stays_within_the_scale(value: float) -> None:
    assert 0 <= float(position(value).removesuffix("%")) <= 100


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
@example({"</script>": "<!-- & ]]> \u2028 \u2029"})
def test_script_data_is_the_same_data_and_cannot_end_its_script(value: Any) -> None:
    text = as_script_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)


def test_odd_values_become_text_instead_of_breaking_the_page() -> None:
    assert json.loads(as_script_json([math.nan, math.inf, Path("a"), "\ud800"])) == ["nan", "inf", "a", "?"]


def test_lists_of_records_become_readable_text() -> None:
    assert as_text([{"subject": "Teld", "similarity": 0.81234}, {"seen": False}]) == (
        "subject Teld, similarity 0.8123\nseen no"
    )
    assert as_text({"found": ["a", "b"], "missing": [], "top_line": 2}) == "found a · b, top line 2"


def test_text_recognised_in_an_image_is_read_from_the_details_of_a_score() -> None:
    assert recognised({"lines": [{"text": "Teld", "box": [0, 0, 1, 1]}, {"box": []}]}) == ["Teld"]
    assert recognised({"recognised": ["Teld", "1898"]}) == ["Teld", "1898"]
    assert recognised({"subjects": []}) == []


def test_systems_are_distinguished_by_more_than_colour() -> None:
    result = marks([f"system {index}" for index in range(COLOURS * len(SHAPES))])
    assert len(set(result)) == COLOURS * len(SHAPES)
    assert len({mark.shape for mark in result[:COLOURS]}) == COLOURS
    assert len({mark.colour for mark in result[:COLOURS]}) == COLOURS


def test_a_system_has_the_same_marker_in_every_order_and_company() -> None:
    alone = {name: marks([name])[0] for name in ("open_book", "noise", "oracle")}
    assert marks(["Open Book"]) == marks(["open-book"]) == [alone["open_book"]]
    since = ["2026-01-02", "2026-01-01", "2026-01-03"]
    assert marks(list(alone), since) == marks(list(alone)[::-1], since[::-1])[::-1]
    same = marks(["noise", "noise"], ["2026-02-01", "2026-01-01"])
    assert same[1] == alone["noise"] and same[0].colour != same[1].colour and same[0].shape != same[1].shape


def test_a_report_does_not_colour_systems_by_their_order(maker: RunMaker) -> None:
    samples = maker.samples(6)
    runs = [maker.run(name, samples, 0.5) for name in ("first", "second", "third")]
    marked = {one.label: one.mark for one in systems_of(runs)}
    assert {one.label: one.mark for one in systems_of(runs[::-1])} == marked


# -- colours: contrast after WCAG 2.2, colour blindness after Machado, Oliveira and Fernandes (2009) -----------------

SEEN_AS = {
    "all three cones": np.eye(3),
    "no long cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no middle cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no short cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def css_colours(name: str) -> list[tuple[str, str]]:
    """Return the light and dark values of the variables whose name matches."""
    css = REPORT.joinpath("static/report.css").read_text()
    return re.findall(rf"--{name}: light-dark\((#\w{{6}}), (#\w{{6}})\)", css)


def linear(colour: str) -> Any:
    """Linear sRGB, each in [0, 1]."""
    part = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the WCAG contrast ratio."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab_of(light: Any) -> Any:
    """CIE L*a*b* under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light
    part = xyz / np.array([0.9505, 1, 1.089])
    root = np.where(part > 0.008856, np.cbrt(part), 7.787 * part + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast_and_distance(side: int) -> None:
    raised, page = css_colours("raised")[0][side], css_colours("page")[0][side]
    systems = [pair[side] for pair in css_colours(r"system-\d")]
    assert len(systems) == COLOURS
    assert min(contrast(colour, raised) for colour in systems) >= 3
    for name in ("ink", "quiet", "accent", "warn"):
        assert min(contrast(css_colours(name)[0][side], back) for back in (raised, page)) >= 4.5, name
    for who, cones in SEEN_AS.items():
        labs = [lab_of(np.clip(cones @ linear(colour), 0, 1)) for colour in systems]
        near = min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2))
        assert near > 10, f"two systems look alike with {who}: {near:.1f}"


# -- what the sources must not contain -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_text_is_never_parsed_as_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc"
        r"|\beval\(|new Function|javascript:|\|\s*safe\b|Markup|autoescape false"
    )
    assert not re.search(forbidden, text)
    assert not re.search(r"<[^>]*\son\w+\s*=", text), "an inline event handler"
    assert not re.search(r"<[^>]*\sstyle\s*=", text), "an inline style"
    assert not re.search(r"(?<!w3\.org/2000/svg)\b(?:https?:)?//(?!www\.w3\.org/2000/svg)\w+\.\w+", text), (
        "a network address"
    )


def test_templates_escape_and_refuse_unknown_names() -> None:
    jinja = environment()
    assert jinja.autoescape is True
    assert jinja.from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"


# -- cells -----------------------------------------------------------------------------------------------------------


def row(values: dict[str, float], *, text_required: bool | None = True, lenient: dict[str, float] | None = None) -> Row:
    """Return one scored generation."""
    return Row(
        sample_id="a", category="game", group="pop_culture_and_news", text_required=text_required,
        generation=GenerationStatus.OK,
        strict=ParsedScore(status=ScoreStatus.OK, values=values, na=tuple(set(DIMENSIONS) - set(values))),
        lenient=ParsedScore(status=ScoreStatus.OK, values=lenient) if lenient else None,
    )  # fmt: skip


def test_the_score_of_an_image_weighs_only_applicable_dimensions() -> None:
    values = dict(zip(DIMENSIONS, (1.0, 0.5, 0.0, 1.0), strict=True))
    state, overall, shown = read_cell([row(values)], STRICT, DIMENSIONS)
    assert state == "scored" and overall == pytest.approx(0.1 + 0.2 + 0.1)
    del values["text_accuracy"]
    state, overall, shown = read_cell([row(values, text_required=False)], STRICT, DIMENSIONS)
    assert (state, shown[2]) == ("scored", None)
    assert overall == pytest.approx((0.1 + 0.2 + 0.1) / 0.6)


def test_each_protocol_uses_its_own_parsed_score() -> None:
    strict = dict.fromkeys(DIMENSIONS, 1.0)
    lenient = dict.fromkeys(DIMENSIONS, 0.5)
    both = [row(strict, lenient=lenient)]
    assert read_cell(both, STRICT, DIMENSIONS)[1] == pytest.approx(1.0)
    assert read_cell(both, OFFICIAL, DIMENSIONS)[1] == pytest.approx(0.5)


def test_a_failed_generation_has_a_state_and_no_number() -> None:
    failed = Row(
        sample_id="a", generation=GenerationStatus.FAILED, generation_reason="gone",
        strict=ParsedScore(status=ScoreStatus.NOT_RUN),
    )  # fmt: skip
    assert read_cell([failed], STRICT, DIMENSIONS) == ("generation_failed", None, [None] * 4)


# -- images and the folder -----------------------------------------------------------------------------------------


def stored(folder: Path, image: Image.Image, ending: str = "PNG") -> tuple[ImageRef, Path]:
    """Return an image file with its record."""
    path = folder / f"original-{len(list(folder.iterdir()))}"
    image.save(path, ending)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=image.width, height=image.height, format=ending), path


def test_large_images_are_reduced_and_heavy_files_encoded_again(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1100, 1800, 3), dtype=np.uint8))
    heavy, light = stored(tmp_path, noise), stored(tmp_path, Image.new("RGB", (900, 300), (10, 90, 30)), "WEBP")
    (tmp_path / "img").mkdir()
    shown = make_images([heavy, light, heavy], tmp_path / "img")
    sizes = {}
    for ref in (heavy[0], light[0]):
        for name in (shown[ref.sha256].small, shown[ref.sha256].large):
            with Image.open(tmp_path / "img" / name) as opened:
                sizes[name] = opened.size
    assert max(sizes[shown[heavy[0].sha256].small]) == max(sizes[shown[light[0].sha256].small]) == SMALL
    assert max(sizes[shown[heavy[0].sha256].large]) == LARGE
    assert (tmp_path / "img" / shown[light[0].sha256].large).read_bytes() == light[1].read_bytes()
    assert len(sizes) == len(list((tmp_path / "img").iterdir())) == 4


def test_an_image_that_cannot_be_shown_gives_the_reason(tmp_path: Path) -> None:
    ref, path = stored(tmp_path, Image.new("RGB", (40, 40)))
    gone = (ref.model_copy(update={"sha256": "0" * 64}), tmp_path / "gone.png")
    path.write_bytes(path.read_bytes()[:60])
    away = (ref.model_copy(update={"sha256": "1" * 64}), None)
    odd = (ref.model_copy(update={"sha256": "../../etc"}), path)
    (tmp_path / "img").mkdir()
    shown = make_images([(ref, path), gone, odd, away], tmp_path / "img")
    assert "cannot be decoded" in shown[ref.sha256].fault
    assert "not on this machine" in shown["1" * 64].fault
    assert "cannot be read" in shown["0" * 64].fault
    assert "not a stored image" in shown["../../etc"].fault
    assert list((tmp_path / "img").iterdir()) == []


def test_a_report_is_replaced_and_its_images_are_reused(maker: Any, tmp_path: Path) -> None:
    run = maker.run("open_book", maker.samples(6), 0.7)
    out = tmp_path / "page"
    assert write_report([run], out) == out / "index.html"
    first = {path.name: path.stat().st_ino for path in (out / "img").iterdir()}
    (out / "data" / "stale.js").write_text("old")
    write_report([run], out)
    assert {path.name: path.stat().st_ino for path in (out / "img").iterdir()} == first
    assert not (out / "data" / "stale.js").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".page")] == []


def test_the_same_runs_give_the_same_bytes(maker: RunMaker, tmp_path: Path) -> None:
    runs = [maker.run("open_book", maker.samples(6), 0.7), maker.run("closed_book", maker.samples(6), 0.3)]
    pages = [write_report(runs, tmp_path / name).parent for name in ("a", "b")]
    files_per_report = [
        {str(path.relative_to(page)): path.read_bytes() for path in page.rglob("*") if path.is_file()} for page in pages
    ]
    assert files_per_report[0] == files_per_report[1]


def test_a_foreign_folder_is_not_replaced(maker: Any, tmp_path: Path) -> None:
    run = maker.run("open_book", maker.samples(2), 0.7)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not a report"):
        write_report([run], tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    page = write_report([run], tmp_path / "page").parent
    (page / "run-7").mkdir()
    with pytest.raises(ConfigError, match="'run-7' beside an earlier report"):
        write_report([run], page)
    assert (page / "run-7").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder"):
        write_report([run], tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert (write_report([run], tmp_path / "empty").parent / MARKER).is_file()


def test_a_report_needs_a_scored_run(maker: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        write_report([], tmp_path / "page")
    run = maker.run("open_book", maker.samples(2), 0.7)
    with pytest.raises(UsageError, match="no summary"):
        write_report([ReportRun(run.store, ())], tmp_path / "page")


def test_runs_with_the_same_name_get_distinct_names(maker: RunMaker) -> None:
    runs = [maker.run("open_book", maker.samples(2), 0.7, folder=name) for name in ("monday", "tuesday")]
    assert [system.label for system in systems_of(runs)] == ["open_book · monday", "open_book · tuesday"]
    runs.append(maker.run("closed_book", maker.samples(2), 0.7))
    assert systems_of(runs)[2].label == "closed_book"
    assert len({system.label for system in systems_of([runs[0], runs[0]])}) == 2


def test_a_read_only_run_directory_is_sufficient(maker: RunMaker, tmp_path: Path) -> None:
    run = maker.run("open_book", maker.samples(3), 0.7)
    before = {path: path.stat().st_mtime_ns for path in run.store.path.rglob("*")}
    write_report([run], tmp_path / "page")
    assert {path: path.stat().st_mtime_ns for path in run.store.path.rglob("*")} == before


def test_a_name_cannot_reverse_or_overflow_the_headline(maker: RunMaker) -> None:
    runs = [
        maker.run(name, maker.samples(12), skill)
        for name, skill in (("\u202eabc" + "x" * 300, 0.9), ("closed_book", 0.1))
    ]
    systems = systems_of(runs)
    sentence = answer(systems, views_of(systems)[0], None).sentence
    assert "\u2068\u202eabcxxx" in sentence and "…\u2069" in sentence
    assert len(sentence) < 140


@pytest.mark.parametrize("name", ["\u2067abc \u2066def", "\u202eabc\u2069def", "\u2068a\u2069\u2069\u2066"])
def test_a_name_in_a_sentence_ends_the_isolates_that_it_opens_and_no_other(name: str) -> None:
    depths, depth = [], 0
    for letter in name_in_sentence(name):
        depth += (letter in "\u2066\u2067\u2068") - (letter == "\u2069")
        depths.append(depth)
    assert depths[-1] == 0 and min(depths[:-1]) > 0
