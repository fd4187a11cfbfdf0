"""Assessment of one image: four values, a rationale and the measurements behind them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.core.records import TEXT
from knowgen.worlds.checker.image_features import SIDE, ImageFeatures, PixelArray, resize_longest
from knowgen.worlds.checker.matching import POINTS, SubjectMatch, SubjectVerdict, match_subject
from knowgen.worlds.checker.ocr import LARGEST_SIDE, TextLine, read_faint_lines, read_lines
from knowgen.worlds.checker.quality import ImageQuality, measure_quality
from knowgen.worlds.checker.requirements import Requirements
from knowgen.worlds.checker.structure import ImageStructure, measure_structure
from knowgen.worlds.checker.text import TextMatch, find_texts


@dataclass(frozen=True)
class ImageAssessment:
    """Result of checking an image.

    Attributes:
        requirements: Requirements it was checked against.
        lines: Recognised lines of text.
        text: Match of the required texts; None if no text is required.
        matches: Match of each required subject.
        structure: Scene, number of things and lettering.
        quality: Image statistics.
        seconds: Processor time by stage.
    """

    requirements: Requirements
    lines: tuple[TextLine, ...]
    text: TextMatch | None
    matches: tuple[SubjectMatch, ...]
    structure: ImageStructure
    quality: ImageQuality
    seconds: Mapping[str, float]

    @property
    def values(self) -> dict[str, float]:
        """Value by dimension, on the grid 0, 0.5, 1; text accuracy is absent if no text is required."""
        share = sum(POINTS[match.verdict] for match in self.matches) / len(self.matches)
        values = {
            "faithfulness": self.structure.value,
            "visual_correctness": 1.0 if share == 1 else 0.5 if share >= 0.5 else 0.0,
        }
        if self.text is not None:
            values[TEXT] = self.text.value
        return {**values, "aesthetics": self.quality.value}

    @property
    def rationale(self) -> str:
        """Summary of what was found and what is missing."""
        missing = [*self._text_faults(), *self._subject_faults(), *self._structure_faults()]
        if self.quality.faults:
            missing.append("image statistics out of range: " + ", ".join(self.quality.faults))
        present = [*(f'"{text}"' for text in (self.text.recognised if self.text else ()))]
        present += [
            subject.name
            for subject, match in zip(self.requirements.subjects, self.matches, strict=True)
            if match.verdict is SubjectVerdict.RIGHT
        ]
        if self.structure.scene_right:
            present.append(f"the {self.requirements.scene}")
        first = f"Found: {', '.join(present)}." if present else "Found nothing that was asked for."
        return f"{first} Missed: {'; '.join(missing)}." if missing else f"{first} Nothing missed."

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
            SubjectVerdict.DISTRACTOR: "drawn as its look-alike",
            SubjectVerdict.HEDGED: "drawn together with its look-alike",
            SubjectVerdict.ABSENT: "not found",
        }
        return [
            f"{subject.name} {words[match.verdict]}"
            for subject, match in zip(self.requirements.subjects, self.matches, strict=True)
            if match.verdict in words
        ]

    def _structure_faults(self) -> list[str]:
        structure, faults = self.structure, []
        if not structure.scene_right:
            nearest = f" (nearest is the {structure.nearest})" if structure.rank else ""
            faults.append(f"the background is not the {self.requirements.scene}{nearest}")
        if not structure.things_right:
            faults.append(f"{structure.things} of {len(self.matches)} things stand out")
        if not structure.lettering_right:
            faults.append("lettering where none was asked for" if structure.lettered else "no lettering at all")
        return faults

    @property
    def details(self) -> dict[str, Any]:
        """Rounded measurements behind the values, as JSON data; boxes are fractions of the image's width and height."""
        structure, quality, text = self.structure, self.quality, self.text
        return {
            "lines": [
                {"text": line.text, "score": round(line.score, 3), "box": [round(edge, 4) for edge in line.box]}
                for line in self.lines
            ],
            "text": None
            if text is None
            else {
                "found": list(text.recognised),
                "missing": list(text.missing),
                "surplus": text.surplus,
                "rivals": list(text.rivals),
            },
            "subjects": [
                {
                    "name": subject.name,
                    "verdict": match.verdict.value,
                    "agreement": round(match.agreement, 3),
                    "lead": round(match.lead, 3),
                    "points": match.points,
                    "box": [round(edge, 4) for edge in match.box] if match.box else None,
                }
                for subject, match in zip(self.requirements.subjects, self.matches, strict=True)
            ],
            "scene": {
                "wanted": self.requirements.scene,
                "nearest": structure.nearest,
                "rank": structure.rank,
                "distance": round(structure.distance, 2),
            },
            "things": {"wanted": len(self.matches), "seen": structure.things},
            "quality": {
                "grain": round(quality.grain, 2),
                "colour": round(quality.colour, 2),
                "edges": round(quality.edges, 4),
                "contrast": round(quality.contrast, 2),
                "faults": list(quality.faults),
            },
        }


def assess_image(pixels: PixelArray, requirements: Requirements) -> ImageAssessment:
    """Check an image against its requirements.

    Args:
        pixels: RGB, height x width x 3, of any size.
        requirements: Requirements with at least one subject.

    Raises:
        MissingDependencyError: If text recognition is not installed.
    """
    clock = [time.process_time()]
    full = resize_longest(pixels, LARGEST_SIDE) if max(pixels.shape[:2]) > LARGEST_SIDE else pixels
    resized = resize_longest(full, SIDE)
    lines = read_lines(full)
    if requirements.texts and find_texts(requirements.texts, lines).missing:
        lines = (*lines, *read_faint_lines(full, lines))
    clock.append(time.process_time())
    features = ImageFeatures.from_pixels(resized)
    matches = tuple(
        match_subject(features, subject.appearance, subject.distractor) for subject in requirements.subjects
    )
    clock.append(time.process_time())
    recognised = [match.box for match in matches if match.box]
    structure = measure_structure(
        resized,
        lines,
        scene=requirements.scene,
        subjects=len(requirements.subjects),
        recognised=recognised,
        text_required=bool(requirements.texts),
    )
    clock.append(time.process_time())
    quality = measure_quality(resized)
    clock.append(time.process_time())
    stages = ("text", "subjects", "structure", "quality")
    return ImageAssessment(
        requirements=requirements,
        lines=lines,
        text=find_texts(requirements.texts, lines, marks=recognised) if requirements.texts else None,
        matches=matches,
        structure=structure,
        quality=quality,
        seconds={stage: clock[index + 1] - clock[index] for index, stage in enumerate(stages)},
    )
