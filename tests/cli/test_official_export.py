"""The official export, compared with an independent implementation of the whole evaluator.

That implementation was written from the description of the protocol and shares no code with the package: which rows are
scored, how replies are parsed, the content of each row, and the three summary rows.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen import api
from knowgen.core.errors import DataError
from tests.helpers.judge_server import Call, JudgeServer, Step
from tests.helpers.official_reference import NAMES, POP, SCIENCE, as_number, as_object, group_summary

WEIRD: list[Any] = [
    None, [], {}, "much", "0.5", "1e0", " 1 ", True, False, 2, -3, 0.333, 0.555, 1.005, "NaN", "Infinity", "-inf", "",
    0.25,
]  # fmt: skip


def reply(generator: random.Random) -> str:
    """Return a random reply, valid or not."""
    kind = generator.random()
    values: dict[str, Any] = {"rationale": generator.choice(["Fine.", "x" * 1500, 7, None, ["a"], "Größe ❄"])}
    for name in NAMES:
        if generator.random() < 0.9:
            values[name] = generator.choice([0, 0.5, 1]) if generator.random() < 0.8 else generator.choice(WEIRD)
    if generator.random() < 0.8:
        values["text_accuracy_na"] = generator.choice([True, False, False, "true", "True", "yes", 1, 1.0, 0, None])
    text = json.dumps(values, ensure_ascii=False)
    if generator.random() < 0.05:
        text = text.replace('"aesthetics": 1', '"aesthetics": NaN').replace(
            '"faithfulness": 1', '"faithfulness": Infinity'
        )
    if kind < 0.1:
        return f"```json\n{text}\n```"
    if kind < 0.15:
        return f"Here you are: {text} I hope this helps."
    if kind < 0.2:
        return text[:-1] + ",}"
    if kind < 0.25:
        return ""
    if kind < 0.3:
        return text[: len(text) // 2]
    if kind < 0.33:
        return "[1, 2]"
    return text


def rows_of(folder: Path, generator: random.Random, count: int, *, unique_ids: bool = False) -> list[dict[str, Any]]:
    """Return rows with the faults of real files; shared or missing ids only without `unique_ids`."""
    categories = [*SCIENCE, *POP, " Sports ", "ANIME", "cooking", "", None, 5]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        for kind in ("out", "gt"):
            colour = tuple(generator.randrange(256) for _ in range(3))
            Image.new("RGB", (24, 18), colour).save(folder / f"{kind}{number}.png")
        name: Any = generator.choice([number, str(number), f"id-{number}", number % 7, str(number % 5)])
        row: dict[str, Any] = {
            "id": number if unique_ids else name,
            "success": generator.choice([True, True, True, True, 1, False, None, "yes"]),
            "prompt": generator.choice([f"Draw thing {number}.", f"  Draw {number}  ", f"Zeichne Nr. {number} – ❄"]),
            "meta": {"category": generator.choice(categories), "difficulty": generator.choice(["easy", "hard", 3])},
            "output_path": f"out{number}.png",
            "gt_image": f"gt{number}.png",
            "extra": {"values": [number, None]},
        }
        fault = generator.random()
        if fault < 0.05 and not unique_ids:
            del row["id"]
        elif fault < 0.1:
            (folder / f"out{number}.png").unlink()
        elif fault < 0.15:
            (folder / f"gt{number}.png").unlink()
        elif fault < 0.18:
            row["prompt"] = generator.choice(["", "   "])
        elif fault < 0.2:
            row["output_path"] = generator.choice([None, ""])
        elif fault < 0.22:
            del row["meta"]
        rows.append(row)
    return rows


def replies_to(row: dict[str, Any], seed: int) -> list[str]:
    """Return the judge's replies to a row in order; the fourth is always an object."""
    generator = random.Random(f"{seed} {row['prompt'].strip()}")
    return [reply(generator) for _ in range(3)] + [json.dumps(dict.fromkeys(NAMES, 0.5) | {"text_accuracy_na": False})]


def evaluate(rows: list[dict[str, Any]], folder: Path, seed: int) -> list[dict[str, Any]]:
    """Return the rows that the official evaluator writes with one worker."""

    def exists(path: Any) -> bool:
        return isinstance(path, str) and bool(path.strip()) and (folder / path).is_file()

    done: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not row["success"] or not exists(row["output_path"]) or not exists(row["gt_image"]):
            continue
        result = {**row, "eval_success": False, "scores": None}
        if not row["prompt"].strip():
            done[str(row.get("id", ""))] = {**result, "error": "empty_prompt"}
            continue
        parsed = next(parsed for parsed in map(as_object, replies_to(row, seed)) if parsed is not None)
        values = {name: as_number(parsed.get(name, 0)) for name in NAMES}
        flag = parsed.get("text_accuracy_na")
        if flag in ("true", "True") or (not isinstance(flag, list | dict | str) and flag == 1):
            values["text_accuracy"] = None
        if any(values[name] is None for name in NAMES if name != "text_accuracy"):
            done[str(row.get("id", ""))] = {**result, "error": "some words"}
            continue
        na = values["text_accuracy"] is None
        shown = {name: 0.5 if value is None else value for name, value in values.items()}
        scores: dict[str, Any] = {"rationale": str(parsed.get("rationale", ""))[:1000], **shown}
        f, v, t, a = (shown[name] for name in NAMES)
        scores["overall"] = round(0.1 * f + 0.4 * v + 0.4 * t + 0.1 * a, 2)
        if na:
            scores["text_accuracy_na"] = True
        done[str(row.get("id", ""))] = {**row, "eval_success": True, "scores": scores, "error": None}
    return [*written(rows, done), *closing(written(rows, done))]


def written(rows: list[dict[str, Any]], done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    none = {"eval_success": False, "scores": None, "error": "not_evaluated"}
    return [done.get(str(row.get("id", place)), {**row, **none}) for place, row in enumerate(rows)]


def closing(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, float | None]]] = {"science_and_knowledge": [], "pop_culture_and_news": []}
    for item in items:
        category = (item.get("meta") or {}).get("category")
        known = category.strip().lower() if isinstance(category, str) else ""
        if item["scores"] is None or known not in (*SCIENCE, *POP):
            continue
        na = item["scores"].get("text_accuracy_na", False)
        values = {name: None if na and name == "text_accuracy" else item["scores"][name] for name in NAMES}
        groups["science_and_knowledge" if known in SCIENCE else "pop_culture_and_news"].append(values)
    science, pop = (group_summary(scored) for scored in groups.values())
    whole = {name: round((science[name] + pop[name]) / 2, 4) for name in science}
    counts = [*map(len, groups.values()), sum(map(len, groups.values()))]
    return [
        {"summary_type": name, "avg_scores": figures, "count": count}
        for name, figures, count in zip([*groups, "overall_avg"], [science, pop, whole], counts, strict=True)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_export_equals_what_the_official_evaluator_writes(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    unique_ids = seed % 2 == 1
    rows = rows_of(tmp_path, generator, 40, unique_ids=unique_ids)
    source = tmp_path / "results.json"
    source.write_text(json.dumps(rows, ensure_ascii=False))
    counts: dict[str, int] = {}

    def script(call: Call) -> Step:
        prompt = call.text.split("Prompt:\n")[1].split("\n\nImage 1")[0].strip()
        count = counts[prompt] = counts.get(prompt, -1) + 1
        row = next(row for row in rows if row["prompt"].strip() == prompt)
        texts = replies_to(row, seed)
        return Step(reply=texts[min(count, 3)])

    with JudgeServer(script) as server:
        run = knowgen.score(
            source,
            "vlm:any",
            out=tmp_path / "run",
            duplicates="last",
            scorer_args={"base_url": server.url, "price_call": 0, "attempts": 8},
            protocol="official",
        )
    out = tmp_path / "results_eval.json"
    assert api.export(run, "official", out) == len(rows)
    ours, theirs = json.loads(out.read_text()), evaluate(rows, tmp_path, seed)
    assert len(ours) == len(theirs) == len(rows) + 3
    for mine, its in zip(ours, theirs, strict=True):
        assert list(mine) == list(its)
        if its.get("error") == "some words":
            assert mine["error"] not in (None, "", "not_evaluated")
            mine = {**mine, "error": "some words"}
        assert mine == its
        if its.get("scores"):
            assert list(mine["scores"]) == list(its["scores"])
    if unique_ids:  # the file counts rows and a run counts samples, which differ if ids are shared
        assert run.summarise("official").headline.value == theirs[-1]["avg_scores"]["overall"]


def test_duplicate_ids_are_an_error_unless_allowed(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, random.Random(1), 3)
    for row in rows:
        row["id"] = "same"
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="--duplicates last"):
        api.plan_scoring(tmp_path / "results.json", ["pixels"])
    plan = api.plan_scoring(tmp_path / "results.json", ["pixels"], duplicates="last")
    assert plan.spec.selection.n == 1


def test_scoring_does_not_change_the_results_file_and_its_images(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, random.Random(2), 4)
    (tmp_path / "results.json").write_text(json.dumps(rows))
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.png")}
    run = knowgen.score(tmp_path / "results.json", "pixels", out=tmp_path / "run", duplicates="last")
    assert run.outcome is not None
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.png")} == before
    assert json.loads((tmp_path / "results.json").read_text()) == rows
