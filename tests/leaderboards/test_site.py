"""The site of boards as files: what it says, copies and replaces; the same files give the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from knowgen.cli.main import cli
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.leaderboards.figures import PairDifference
from knowgen.leaderboards.folder import read_board, read_boards
from knowgen.leaderboards.site.build import build_site, chosen_boards
from knowgen.leaderboards.site.folder import MARKER
from knowgen.leaderboards.site.view import part_page, reversed_pair
from knowgen.stats.values import STATES
from tests.helpers.site_boards import BoardMaker


@pytest.fixture
def maker(tmp_path: Path) -> BoardMaker:
    """Return a maker of a small board without images, whose files are written."""
    maker = BoardMaker(tmp_path / "boards", samples=48, images=False)
    maker.write()
    return maker


def text_of(page: Path) -> str:
    """Return the text of a page without its tags, with single spaces."""
    plain = re.sub(r"<(style|script|title)\b.*?</\1>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(plain.replace("\u2011", "-").split())


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def data_of(path: Path) -> Any:
    """Return the value of a script of data."""
    return json.loads(path.read_text(encoding="utf-8").split("=", 2)[2].rstrip(";\n"))


def built(maker: BoardMaker, out: Path) -> Path:
    """Build the site of all boards of a maker."""
    return build_site(read_boards(maker.root), out).parent


# -- the answer --------------------------------------------------------------------------------------------------------


def test_a_clear_leader_is_named_with_its_lead(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("strong", 0.75)
    maker.add("weak", 0.25)
    site = built(maker, tmp_path / "site")
    sentence = re.search(r"Strong leads Weak by (0\.\d{3}) in K-Score\.", text_of(site / "main" / "index.html"))
    assert sentence is not None and 0.3 < float(sentence[1]) < 1
    assert sentence[0] in text_of(site / "index.html")


def test_systems_without_a_clear_difference_share_the_lead_and_their_ranks(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("one", 0.7)
    maker.add("two", 0.68)
    maker.add("weak", 0.25)
    page = text_of(built(maker, tmp_path / "site") / "main" / "index.html")
    assert re.search(r"No clear leader in K-Score between (One and Two|Two and One)\.", page)
    assert page.count("1–2") == 2


def test_boards_without_systems_and_with_one_say_so(maker: BoardMaker, tmp_path: Path) -> None:
    assert "No system has a result in K-Score yet." in text_of(built(maker, tmp_path / "site") / "main" / "index.html")
    maker.add("alone", 0.7)
    page = text_of(built(maker, tmp_path / "site") / "main" / "index.html")
    assert "Alone is the only system with a result: K-Score 0." in page


def test_a_system_below_the_coverage_has_no_rank_and_says_why(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("whole", 0.6)
    maker.add("part", 0.9, unjudged=range(6))
    site = built(maker, tmp_path / "site")
    assert "no result: 6 of 48 scores failed" in text_of(site / "main" / "index.html")
    assert "Whole is the only system with a result" in text_of(site / "main" / "index.html")
    assert "No result: 6 of 48 scores failed" in text_of(site / "main" / "system-part.html")


def test_a_board_may_be_ranked_by_a_dimension(maker: BoardMaker, tmp_path: Path) -> None:
    maker.write(ranking="faithfulness")
    maker.add("strong", 0.75)
    maker.add("weak", 0.25)
    site = built(maker, tmp_path / "site")
    page = (site / "main" / "index.html").read_text(encoding="utf-8")
    assert "Strong leads Weak by 0." in page and "in faithfulness." in page
    keys = re.findall(r'data-key="([a-z_]+)"', page.split('id="ranking-table"')[1].split("</thead>")[0])
    assert keys[:6] == ["rank", "name", "score", "overall", "visual_correctness", "text_accuracy"]
    samples = read_board(maker.folder).samples
    lines = data_of(site / "main" / "data" / "values-strong.js")
    place = next(place for place, one in enumerate(samples) if one.category == "biology")
    other = data_of(site / "main" / "data" / "values-weak.js")[place]
    mean = (lines[place][3] + other[3]) / 2
    part = text_of(site / "main" / "category-biology.html")
    assert f"{samples[place].prompt} {mean:.3f}" in part


def test_the_page_states_the_coverage_of_the_board_not_of_the_protocol(maker: BoardMaker, tmp_path: Path) -> None:
    maker.write(min_coverage=1)
    maker.add("part", 0.6, unjudged=[3])
    site = built(maker, tmp_path / "site")
    page = text_of(site / "main" / "index.html")
    assert "below 100 % of the scores a run has no result" in page and "fewer than 100%" in page
    assert "95%" not in page and "below 95 %" not in page
    assert "No result: 1 of 48 scores failed" in text_of(site / "main" / "system-part.html")


def test_a_system_without_a_figure_says_why_although_its_coverage_suffices(tmp_path: Path) -> None:
    maker = BoardMaker(tmp_path / "boards", samples=12, images=False, categories=["heraldry"])
    maker.write()
    maker.add("model", 0.6)
    site = built(maker, tmp_path / "site")
    reason = "no sample that counts for it has a score"
    assert f"no result: {reason}" in text_of(site / "main" / "index.html")
    assert f"No result: {reason}." in text_of(site / "main" / "system-model.html")


def test_differences_that_no_test_can_tell_are_not_called_unclear(tmp_path: Path) -> None:
    maker = BoardMaker(tmp_path / "boards", samples=8, images=False)
    maker.write()
    maker.add("strong", 0.9)
    maker.add("weak", 0.1)
    site = built(maker, tmp_path / "site")
    versus = text_of(site / "main" / "system-weak.html").split("Against each other system")[1]
    assert "not tested" in versus and "no clear difference" not in versus
    page = text_of(site / "main" / "difficulty-hard.html")
    assert "No two systems can be tested here (n too small): their order may be chance." in page


@pytest.mark.parametrize(("costs", "words"), [
    ([0.0, 0.0], "the cost per image is $0 for both systems whose cost is known"),
    ([0.04, 0.04, None], "the cost per image is $0.0400 for both systems whose cost is known"),
    ([0.0, 0.04], ""),
])  # fmt: skip
def test_a_chart_of_one_cost_is_a_sentence(
    maker: BoardMaker, tmp_path: Path, costs: list[float | None], words: str
) -> None:
    for number, cost in enumerate(costs):
        maker.add(f"model-{number}", 0.3 + 0.1 * number, cost=cost)
    page = built(maker, tmp_path / "site") / "main" / "index.html"
    assert ("cost-chart" in page.read_text(encoding="utf-8")) is not bool(words)
    assert words in text_of(page)


def test_an_unknown_time_is_not_0_seconds(maker: BoardMaker, tmp_path: Path) -> None:
    result = maker.add("model", 0.6) / "result.json"
    result.write_text(re.sub(r'"seconds": [0-9.]+, "cost"', '"cost"', result.read_text()))
    site = built(maker, tmp_path / "site")
    page = (site / "main" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'data-label="Time" data-value="">–<', page)
    assert '"seconds"' not in (site / "main" / "data" / "results-model-0.js").read_text(encoding="utf-8")


# -- a private season --------------------------------------------------------------------------------------------------

SEASON = {
    "name": "spring", "opens": "2026-01-01", "closes": "2026-02-28", "samples": 48, "revisions": 3, "world": 1,
    "task_version": "1-0123456789ab", "search_version": "abc", "commitment": "a" * 64, "files": {}, "made_with": {},
}  # fmt: skip
OPEN = "A private season of 48 samples, open, announced from 2026-01-01 to 2026-02-28: figures may change."
CLOSED = "A private season of 48 samples, closed on 2026-03-01 and not yet revealed: it takes no more submissions."
REVEALED = "A private season of 48 samples, closed on 2026-03-01 and revealed on 2026-03-02: anybody can"


@pytest.mark.parametrize(("state", "fields", "words"), [
    ("open", {}, OPEN),
    ("closed", {"closed": "2026-03-01"}, CLOSED),
    ("revealed", {"closed": "2026-03-01", "revealed": {"date": "2026-03-02", "seed": "b" * 64, "nonce": "c" * 64}},
     REVEALED),
])  # fmt: skip
def test_a_season_shows_its_state_its_days_and_what_binds_it(
    maker: BoardMaker, tmp_path: Path, state: str, fields: dict[str, Any], words: str
) -> None:
    maker.write(season="season.yaml")
    (maker.folder / "season.yaml").write_text(yaml.safe_dump({**SEASON, **fields}))
    maker.add("model", 0.6)
    site = built(maker, tmp_path / "site")
    page = text_of(site / "main" / "index.html")
    assert words in page and "a" * 64 in page
    assert ("b" * 64 in page and "c" * 64 in page) is (state == "revealed")
    assert ("are published when it is revealed" in page) is not (state == "revealed")
    assert f"Season {state}" in text_of(site / "index.html")
    again = text_of(site / "main" / "system-model.html")
    assert "knowgen run --task knowgen/public --generator" in again and "--scorer" not in again


# -- what is shown apart -----------------------------------------------------------------------------------------------


def test_published_rows_are_apart_and_never_among_the_ranked(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("strong", 0.75)
    maker.publish(url="javascript:alert(1)")
    page = (built(maker, tmp_path / "site") / "main" / "index.html").read_text(encoding="utf-8")
    ranking, published = page.split('id="published"')
    assert "Some Model" not in ranking and "Some Model" in published
    assert "As published, not checked" in published and "the paper, table 2" in published
    assert 'href="javascript' not in page


def test_published_numbers_keep_their_decimals(maker: BoardMaker, tmp_path: Path) -> None:
    maker.publish("system,sk_visual,k_score\nA,61.60,34\nB,5.5,\n")
    page = text_of(built(maker, tmp_path / "site") / "main" / "index.html")
    assert "System Science & Knowledge, visual K-Score A 61.6 34 B 5.5 –" in page.replace("&amp;", "&")


def test_a_board_that_is_not_pinned_says_so(maker: BoardMaker, tmp_path: Path) -> None:
    maker.write(task={"name": "knowgen", "version": None})
    maker.publish()
    (maker.folder / "samples.jsonl").unlink()
    site = built(maker, tmp_path / "site")
    page = text_of(site / "main" / "index.html")
    assert "not pinned to a version of its task" in page and "Some Model" in page
    assert "no samples yet" in text_of(site / "index.html")


def test_withdrawn_and_earlier_revisions_are_listed_with_their_reason(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.5, revision="1", day=1)
    maker.add("model", 0.6, revision="2", day=2)
    maker.add("gone", 0.9, withdrawn="its images were taken from the ground truth")
    site = built(maker, tmp_path / "site")
    page = text_of(site / "main" / "index.html")
    ranking, others = (
        page.split("Withdrawn and earlier revisions", 1)[0],
        page.split("Withdrawn and earlier revisions")[-1],
    )
    assert "Gone" not in ranking
    assert "Gone 1 withdrawn 2026-01-31: its images were taken from the ground truth" in others
    assert "Model 1 replaced replaced by revision 2" in others
    assert "revision 2" in text_of(site / "main" / "system-model.html")
    shutil.rmtree(maker.folder / "model")
    alone = text_of(built(maker, tmp_path / "alone") / "main" / "index.html")
    assert "Every submission was withdrawn" in alone and "No system has been submitted" not in alone
    assert "Compare two systems" not in alone
    assert not (site / "main" / "system-gone.html").exists()


# -- pages of systems and parts ----------------------------------------------------------------------------------------


def test_the_page_of_a_system_has_its_facts_failures_and_command_line(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.6, failed=[0], contact="javascript:alert(1)", training_data="captions & <b>alt</b> texts")
    page = (built(maker, tmp_path / "site") / "main" / "system-model.html").read_text(encoding="utf-8")
    assert "knowgen run --task knowgen --generator diffusers:Qwen/Qwen-Image -g" in page
    assert (
        "prefix=a photo of" in page
        and "-g steps=20" in page
        and "--scorer vlm:gpt-4.1 --protocol strict --seed 0" in page
    )
    assert "out of memory" in page and "generation failed" in page
    assert "captions &amp; &lt;b&gt;alt&lt;/b&gt; texts" in page
    assert 'href="https://example.org/paper"' in page and 'href="javascript' not in page


def test_the_page_of_a_category_orders_systems_by_their_figure_there(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("strong", 0.75)
    maker.add("weak", 0.25)
    site = built(maker, tmp_path / "site")
    page = text_of(site / "main" / "difficulty-hard.html")
    assert page.index("Strong") < page.index("Weak")
    assert "16 samples" in page and maker.prompt(2) in page and maker.prompt(3) not in page


@pytest.mark.parametrize("name", ["../x", "", "a/b", "CON", "x" * 300, "<script>", "naïve"])
def test_names_of_categories_give_safe_file_names(name: str) -> None:
    assert re.fullmatch(r"category-[a-z0-9_-]{1,60}\.html", part_page("category", name))
    assert part_page("category", name) != part_page("category", name + " ")


def test_values_of_samples_are_those_that_the_protocol_counts(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.6, failed=[0], unjudged=[1])
    site = built(maker, tmp_path / "site")
    failed, unjudged, scored, *_ = data_of(site / "main" / "data" / "values-model.js")
    assert failed == [STATES.index("generation_failed"), 1, 0, 0, 0, 0, 0]
    assert unjudged == [STATES.index("score_failed"), 1, *[None] * 5]
    given = next(read_board(maker.folder).submissions()).read_result().samples[2].generations[0].scores[0].strict.values
    weights = {"faithfulness": 0.1, "visual_correctness": 0.4, "text_accuracy": 0.4, "aesthetics": 0.1}
    assert scored[2] == pytest.approx(sum(weights[name] * given[name] for name in weights))
    assert scored[3:] == [given[name] for name in weights]
    page = text_of(site / "main" / "system-model.html")
    assert "generation failed out of memory 0 1" in page and "score failed the reply was cut excluded 1" in page


def test_a_reversed_difference_has_its_ends_exchanged() -> None:
    assert reversed_pair(PairDifference(0.1, -0.05, 0.2, 0.3, 0.4, 7)) == PairDifference(-0.1, -0.2, 0.05, 0.3, 0.4, 7)


def test_every_link_leads_to_a_file_of_the_site_or_to_the_web(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.6, failed=[0])
    maker.add("other", 0.4)
    maker.publish(url="https://example.org/paper")
    pages = sorted(built(maker, tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for address in re.findall(r'(?:href|src)="([^"]*)"', page.read_text(encoding="utf-8")):
            here = address.split("#")[0]
            assert here.startswith("https://example.org/") or not here or (page.parent / here).is_file(), (
                page,
                address,
            )


# -- files -------------------------------------------------------------------------------------------------------------


def test_thumbnails_are_copied_once_and_only_if_their_hash_is_right(tmp_path: Path) -> None:
    maker = BoardMaker(tmp_path / "boards", samples=12)
    maker.write()
    folder = maker.add("model", 0.6)
    maker.add("model", 0.6, revision="0", day=1)
    tampered, *others = sorted((folder / "images").iterdir())
    tampered.write_bytes(others[0].read_bytes())
    site = built(maker, tmp_path / "site")
    assert sorted(path.name for path in (site / "img").iterdir()) == [path.name for path in others]
    data = (site / "main" / "data" / "results-model-0.js").read_text(encoding="utf-8")
    assert "the file of its thumbnail is another than the submission says" in data and tampered.name not in data


def test_a_build_replaces_an_earlier_site_and_nothing_else(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.6)
    out = built(maker, tmp_path / "site")
    first = contents(out)
    shutil.rmtree(maker.folder / "model")
    built(maker, out)
    assert contents(out) != first and not (out / "main" / "system-model.html").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="'notes.txt' beside an earlier site"):
        built(maker, out)
    (out / "notes.txt").unlink()
    (out / MARKER).unlink()
    before = contents(out)
    with pytest.raises(ConfigError, match="not a site of leaderboards"):
        built(maker, out)
    assert contents(out) == before


def test_an_error_in_a_system_file_names_that_file_alone(maker: BoardMaker, tmp_path: Path) -> None:
    maker.add("model", 0.6, name="n" * 81)
    with pytest.raises(DataError, match=r"system\.yaml:1: name") as caught:
        built(maker, tmp_path / "site")
    assert "result.json" not in str(caught.value)


def test_an_error_leaves_the_earlier_site_as_it_was(maker: BoardMaker, tmp_path: Path) -> None:
    folder = maker.add("model", 0.6)
    out = built(maker, tmp_path / "site")
    before = contents(out)
    (folder / "result.json").write_text("{")
    with pytest.raises(DataError):
        built(maker, out)
    assert contents(out) == before and sorted(path.name for path in tmp_path.iterdir()) == ["boards", "site"]


def test_a_board_cannot_have_the_name_of_a_folder_of_the_site(maker: BoardMaker, tmp_path: Path) -> None:
    maker.folder.rename(maker.root / "static")
    with pytest.raises(DataError, match="cannot have the name 'static'"):
        built(maker, tmp_path / "site")


def test_the_command_builds_all_boards_or_those_named(maker: BoardMaker, tmp_path: Path) -> None:
    BoardMaker(maker.root, name="other", samples=6, images=False).write()
    (maker.folder / "samples.jsonl").write_text("damaged")  # a board that is not asked for is not read
    out = tmp_path / "site"
    done = CliRunner().invoke(cli, ["board", "build", "-o", str(out), "--root", str(maker.root), "other"])
    assert done.exit_code == 0 and done.output.strip() == str(out / "index.html")
    assert (out / "other").is_dir() and not (out / "main").exists()
    with pytest.raises(UsageError, match="the board 'third' is unknown") as caught:
        chosen_boards(maker.root, ["third"])
    assert caught.value.fix == "the boards are main, other"


def test_the_same_files_give_the_same_bytes_whatever_their_order(maker: BoardMaker, tmp_path: Path) -> None:
    for slug, strength in (("b", 0.6), ("a", 0.6), ("c", 0.3)):
        maker.add(slug, strength)
    other = BoardMaker(tmp_path / "again", samples=48, images=False)
    other.write()
    for slug, strength in (("c", 0.3), ("a", 0.6), ("b", 0.6)):  # other folders first, and lines in another order
        result = other.add(slug, strength) / "result.json"
        result.write_text(json.dumps(dict(reversed(json.loads(result.read_text()).items())), indent=1))
    assert contents(built(maker, tmp_path / "one")) == contents(built(other, tmp_path / "two"))


@pytest.mark.slow
def test_the_first_page_of_sixty_systems_is_light(tmp_path: Path) -> None:
    maker = BoardMaker(tmp_path / "boards", samples=48, images=False)
    maker.write()
    for number in range(60):
        maker.add(f"system-{number:02}", 0.2 + number / 100, cost=0.01 * (number + 1))
    site = built(maker, tmp_path / "site")
    loaded = [site / "main" / "index.html", *(site / "static").iterdir()]  # no page loads all of them
    assert sum(path.stat().st_size for path in loaded) < 500_000


@pytest.mark.slow
def test_locale_time_zone_hash_seed_and_processes_do_not_change_a_byte(maker: BoardMaker, tmp_path: Path) -> None:
    for slug, strength in (("b", 0.6), ("a", 0.6), ("c", 0.3)):
        maker.add(slug, strength, failed=[1])
    maker.publish()
    settings = [
        ("C", "UTC", "0", "1"),
        ("C.UTF-8", "Pacific/Kiritimati", "1", "2"),
        ("tr_TR.UTF-8", "America/St_Johns", "7", "3"),
    ]
    found = []
    for number, (locale, zone, seed, processes) in enumerate(settings):
        out = tmp_path / f"site{number}"
        environment = {**os.environ, "LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-m", "knowgen", "board", "build", "-o", str(out), "--root", str(maker.root)]
        words += ["--processes", processes]
        subprocess.run(words, env=environment, check=True, capture_output=True)
        found.append(contents(out))
    assert found[0] == found[1] == found[2] and len(found[0]) > 30
