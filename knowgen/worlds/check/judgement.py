"""Everything the check finds in one picture, put together into four values and a few words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.core.records import TEXT
from knowgen.worlds.check.matching import POINTS, Finding, Verdict, match_subject
from knowgen.worlds.check.ocr import LARGEST_SIDE, Line, read_lines
from knowgen.worlds.check.quality import Quality, measure_quality
from knowgen.worlds.check.sight import SIDE, PixelSimilarity, Sight, scaled
from knowgen.worlds.check.structure import Structure, judge_structure
from knowgen.worlds.check.text import TextFinding, find_texts
from knowgen.worlds.check.wanted import Wanted


@dataclass(frozen=True)
class Judgement:
    """What was found in a picture.

    Attributes:
        wanted: The demands it was held against.
        lines: The text that was read.
        text: Which texts were found; None when none is wanted.
        findings: One for each subject.
        structure: The picture as a whole.
        quality: Image statistics.
        seconds: Processor time by stage.
    """

    wanted: Wanted
    lines: tuple[Line, ...]
    text: TextFinding | None
    findings: tuple[Finding, ...]
    structure: Structure
    quality: Quality
    seconds: Mapping[str, float]

    @property
    def values(self) -> dict[str, float]:
        """Value by dimension, on the grid 0, 0.5, 1; text accuracy is absent when no text is wanted."""
        share = sum(POINTS[finding.verdict] for finding in self.findings) / len(self.findings)
        values = {
            "faithfulness": self.structure.value,
            "visual_correctness": 1.0 if share == 1 else 0.5 if share >= 0.5 else 0.0,
        }
        if self.text is not None:
            values[TEXT] = self.text.value
        return {**values, "aesthetics": self.quality.value}

    @property
    def rationale(self) -> str:
        """What was found and what was missed, in a sentence or two."""
        missed = [*self._text_faults(), *self._subject_faults(), *self._structure_faults()]
        if self.quality.faults:
            missed.append("image statistics out of range: " + ", ".join(self.quality.faults))
        found = [*(f'"{text}"' for text in (self.text.found if self.text else ()))]
        found += [
            subject.name
            for subject, finding in zip(self.wanted.subjects, self.findings, strict=True)
            if finding.verdict is Verdict.RIGHT
        ]
        if self.structure.scene_right:
            found.append(f"the {self.wanted.scene}")
        first = f"Found: {', '.join(found)}." if found else "Found nothing that was asked for."
        return f"{first} Missed: {'; '.join(missed)}." if missed else f"{first} Nothing missed."

    def _text_faults(self) -> list[str]:
        if self.text is None:
            return []
        faults = [f'"{text}" not found' for text in self.text.missing]
        if self.text.flooded:
            faults.append(f"{self.text.surplus} letters more than were asked for")
        if self.text.rivals:
            faults.append(f"{', '.join(self.text.rivals)} offered beside the right number")
        return faults

    def _subject_faults(self) -> list[str]:
        words = {
            Verdict.LOOK_ALIKE: "drawn as its look-alike",
            Verdict.HEDGED: "drawn together with its look-alike",
            Verdict.ABSENT: "not found",
        }
        return [
            f"{subject.name} {words[finding.verdict]}"
            for subject, finding in zip(self.wanted.subjects, self.findings, strict=True)
            if finding.verdict in words
        ]

    def _structure_faults(self) -> list[str]:
        structure, faults = self.structure, []
        if not structure.scene_right:
            nearest = f" (nearest is the {structure.nearest})" if structure.rank else ""
            faults.append(f"the background is not the {self.wanted.scene}{nearest}")
        if not structure.things_right:
            faults.append(f"{structure.things} of {len(self.findings)} things stand out")
        if not structure.lettering_right:
            faults.append("lettering where none was asked for" if structure.lettered else "no lettering at all")
        return faults

    @property
    def details(self) -> dict[str, Any]:
        """The figures behind the values, rounded, fit for JSON; boxes are shares of the picture's width and height."""
        structure, quality, text = self.structure, self.quality, self.text
        return {
            "lines": [
                {"text": line.text, "score": round(line.score, 3), "box": [round(edge, 4) for edge in line.box]}
                for line in self.lines
            ],
            "text": None
            if text is None
            else {
                "found": list(text.found),
                "missing": list(text.missing),
                "surplus": text.surplus,
                "rivals": list(text.rivals),
            },
            "subjects": [
                {
                    "name": subject.name,
                    "verdict": finding.verdict.value,
                    "agreement": round(finding.agreement, 3),
                    "lead": round(finding.lead, 3),
                    "points": finding.points,
                    "box": [round(edge, 4) for edge in finding.box] if finding.box else None,
                }
                for subject, finding in zip(self.wanted.subjects, self.findings, strict=True)
            ],
            "scene": {
                "wanted": self.wanted.scene,
                "nearest": structure.nearest,
                "rank": structure.rank,
                "distance": round(structure.distance, 2),
            },
            "things": {"wanted": len(self.findings), "seen": structure.things},
            "quality": {
                "grain": round(quality.grain, 2),
                "colour": round(quality.colour, 2),
                "edges": round(quality.edges, 4),
                "contrast": round(quality.contrast, 2),
                "faults": list(quality.faults),
            },
        }


def judge(pixels: PixelSimilarity, wanted: Wanted) -> Judgement:
    """Holds a picture against what is wanted.

    Args:
        pixels: RGB, height x width x 3, of any size.
        wanted: The demands, with at least one subject.

    Raises:
        MissingDependencyError: Text recognition is not installed.
    """
    clock = [time.process_time()]
    full = scaled(pixels, LARGEST_SIDE) if max(pixels.shape[:2]) > LARGEST_SIDE else pixels
    seen = scaled(full, SIDE)
    lines = read_lines(full)
    clock.append(time.process_time())
    sight = Sight.of(seen)
    findings = tuple(match_subject(sight, subject.look, subject.look_alike) for subject in wanted.subjects)
    clock.append(time.process_time())
    structure = judge_structure(
        seen,
        lines,
        scene=wanted.scene,
        subjects=len(wanted.subjects),
        recognised=[finding.box for finding in findings if finding.box],
        text_wanted=bool(wanted.texts),
    )
    clock.append(time.process_time())
    quality = measure_quality(seen)
    clock.append(time.process_time())
    stages = ("text", "subjects", "structure", "quality")
    return Judgement(
        wanted=wanted,
        lines=lines,
        text=find_texts(wanted.texts, lines) if wanted.texts else None,
        findings=findings,
        structure=structure,
        quality=quality,
        seconds={stage: clock[index + 1] - clock[index] for index, stage in enumerate(stages)},
    )
