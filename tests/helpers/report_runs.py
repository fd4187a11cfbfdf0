"""Builds run directories for the tests of reports."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from knowgen.core.records import (
    DIMENSIONS,
    AgentAnswer,
    Attempt,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
    Usage,
    group_of,
)
from knowgen.core.spec import (
    AgentSpec,
    GeneratorSpec,
    RunSpec,
    ScorerSpec,
    fingerprint,
    generation_key,
    score_key,
    select,
    text_hash,
)
from knowgen.report.view import ReportRun
from knowgen.stats.aggregate import aggregate
from knowgen.store.run import RunStore

CATEGORIES = ("biology", "game", "physics", "film", "astronomy", "news")
DIFFICULTIES = ("easy", "medium", "hard")
CHECK = ScorerSpec(name="world_check", version="1", note="world check, not a VLM judge", dimensions=DIMENSIONS)
JUDGE = ScorerSpec(name="vlm:tiny-judge", version="3", dimensions=DIMENSIONS)

Answered = Callable[[RunStore, Sample, int], AgentAnswer]
Draw = Callable[[Sample, str], Image.Image]


def make_samples(count: int, prompts: Sequence[str] = ()) -> list[Sample]:
    """Return samples of six categories, with the given prompts first."""
    samples = []
    for number in range(count):
        category = CATEGORIES[number % len(CATEGORIES)]
        prompt = prompts[number] if number < len(prompts) else f"Draw the lighthouse number {number} with its name."
        samples.append(
            Sample(
                id=f"s{number:03d}", prompt=prompt, category=category, group=group_of(category),
                difficulty=DIFFICULTIES[number % 3], text_required=number % 4 != 3,
            )
        )  # fmt: skip
    return samples


def plain_image(sample: Sample, system: str) -> Image.Image:
    """Return a small image that differs between samples and systems."""
    shade = random.Random(f"{sample.id} {system}")
    image = Image.new("RGB", (96, 64), tuple(shade.randrange(60, 230) for _ in range(3)))
    ImageDraw.Draw(image).ellipse((20, 12, 70, 52), fill=tuple(shade.randrange(256) for _ in range(3)))
    return image


def as_png(image: Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class RunMaker:
    """Builds run directories in a folder."""

    CHECK = CHECK
    JUDGE = JUDGE

    def __init__(self, folder: Path, draw: Draw = plain_image) -> None:
        self.folder, self.draw = folder, draw
        self.task = "lighthouses"
        self.reason = "the service closed the connection"
        self.rationale = "The lamp room is right; the name on the sign has one wrong letter."
        self.subject = "Pharos of Teld"
        self.address = "world://pictures/12"
        self.failing = True
        self.fail_rate = 0.06
        self.version = "1-abcdef012345"

    @staticmethod
    def samples(count: int, prompts: Sequence[str] = ()) -> list[Sample]:
        """Call `make_samples`."""
        return make_samples(count, prompts)

    def truth(self, sample: Sample) -> GroundTruth:
        """Return the ground truth of a sample, with its image in the task's folder."""
        data = as_png(self.draw(sample, "truth"))
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / "truth" / f"{digest}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        with Image.open(path) as opened:
            width, height = opened.size
        image = ImageRef(sha256=digest, width=width, height=height, format="PNG", path=path)
        return GroundTruth(
            sample_id=sample.id, image=image, required_text=("Teld", "1898"), text_required=sample.text_required,
            subjects=({"name": self.subject, "look": {"kind": "tower", "stripes": 3}},),
            evidence=("page 12: Lights of the coast",),
        )  # fmt: skip

    def run(
        self,
        system: str,
        samples: Sequence[Sample],
        skill: float,
        *,
        scorers: Sequence[ScorerSpec] = (CHECK,),
        protocols: Sequence[str] = ("strict", "official"),
        repeats: int = 1,
        privileged: bool = False,
        folder: str = "",
        agent: Answered | None = None,
        painter: str = "",
    ) -> ReportRun:
        """One finished run of a system whose scores rise with `skill`, in [0, 1].

        With an `agent`, which returns its answer for each sample and repeat, the system is the run's agent.
        """
        spec = RunSpec(
            task=self.task, task_version=self.version, selection=select([one.id for one in samples], "all"),
            generator=GeneratorSpec(name=painter or system, revision="2", privileged=privileged, args={"steps": 4}),
            scorers=tuple(scorers), seed=7, repeats=repeats, agent=AgentSpec(name=system) if agent else None,
        )  # fmt: skip
        place = self.folder / (folder or f"run-{len(list(self.folder.glob('run-*')))}")
        with RunStore.open(place, spec) as store:
            truths = [self.truth(sample) for sample in samples]
            store.put_samples(zip(samples, truths, strict=True))
            for sample, truth in zip(samples, truths, strict=True):
                for repeat in range(repeats):
                    if agent is not None:
                        store.put_answer(f"answer {sample.id} {repeat}", agent(store, sample, repeat))
                    generation = self._draw(store, sample, system, repeat)
                    for scorer in scorers if generation.image else ():
                        self._judge(store, sample, truth, generation, scorer, skill)
        reader = RunStore.read(place)
        return ReportRun(
            reader,
            tuple(
                aggregate(
                    reader.rows(scorer.name), protocol, dimensions=scorer.dimensions, system=system,
                    task=spec.task, task_version=spec.task_version, scorer=scorer.name, scorer_note=scorer.note,
                    selection=spec.selection.label, cost=0.24, seconds=81.0,
                )
                for scorer in scorers
                for protocol in protocols
            ),
        )  # fmt: skip

    def _draw(self, store: RunStore, sample: Sample, system: str, repeat: int) -> Generation:
        chance = random.Random(f"{sample.id} {system} {repeat} fate").random()
        status, reason, image = GenerationStatus.OK, "", None
        if self.failing and chance < self.fail_rate:
            status, reason = GenerationStatus.FAILED, self.reason if chance < self.fail_rate / 2 else "out of memory"
        elif self.failing and chance < self.fail_rate + 0.04:
            status, reason = GenerationStatus.REFUSED, "the endpoint declined the prompt"
        else:
            content = self.draw(sample, system)
            image = store.put_image(as_png(content), width=content.width, height=content.height, format="PNG")
        generation = Generation(
            sample_id=sample.id, repeat=repeat, status=status, reason=reason, image=image, seed=7 + repeat,
            used_prompt=f"{sample.prompt} The name is Teld." if system == "open_book" else "",
            references=({"title": "Teld light, north side", "url": self.address},),
            evidence=({"title": "Lights of the coast", "text": "Teld was lit in 1898."},),
            settings={"steps": 4, "size": "96x64", "library": "painter 1.0"}, seconds=0.4 + chance,
            usage=Usage(input_tokens=120, output_tokens=30, cost=0.004),
        )  # fmt: skip
        store.put_generation(self._key(store.spec, sample, repeat), generation)
        return generation

    @staticmethod
    def _key(spec: RunSpec, sample: Sample, repeat: int) -> str:
        return generation_key(
            spec, sample_id=sample.id, prompt_hash=text_hash(sample.prompt), references=(), repeat=repeat
        )

    def _judge(
        self,
        store: RunStore,
        sample: Sample,
        truth: GroundTruth,
        generation: Generation,
        scorer: ScorerSpec,
        skill: float,
    ) -> None:
        chance = random.Random(f"{sample.id} {store.spec.generator.name} {scorer.name} {generation.repeat}")
        values = {
            name: chance.choices((0.0, 0.5, 1.0), (1.3 - skill, 0.6, 0.2 + 1.6 * skill**2))[0] for name in DIMENSIONS
        }
        na: tuple[str, ...] = ()
        if sample.text_required is False:
            del values["text_accuracy"]
            na = ("text_accuracy",)
        status, reason = ScoreStatus.OK, ""
        if self.failing and chance.random() < 0.04:
            status, reason, values, na = ScoreStatus.FAILED, "three replies in a row were not JSON", {}, ()
        strict = ParsedScore(
            status=status, values=values, na=na, rationale=self.rationale if values else "", reason=reason
        )
        assert generation.image is not None
        by_judge = scorer.name.startswith("vlm")
        reply = Attempt(
            reply='{"reasoning": "' + self.rationale + '", "faithfulness": 1}',
            model="tiny-judge-2",
            finish_reason="stop",
            seconds=0.3,
            usage=Usage(input_tokens=900, output_tokens=80, cost=0.002),
        )
        key = score_key(
            scorer, task_version=store.spec.task_version, sample_id=sample.id,
            truth_hash=fingerprint([sample.id, truth.required_text]), image=generation.image.sha256,
            repeat=generation.repeat, judge_repeat=0,
        )  # fmt: skip
        score = Score(
            sample_id=sample.id, repeat=generation.repeat, scorer=scorer.name, status=status, strict=strict,
            lenient=strict if by_judge else None, image=generation.image.sha256, attempts=(reply,) if by_judge else (),
            judge_asked="tiny-judge" if by_judge else "", judge_returned="tiny-judge-2" if by_judge else "", parser="1",
            details={
                **({"rubric": "tiny-rubric-1", "rubric_hash": "ab12" * 16} if by_judge else {}),
                "recognised": ["Teld", "1896"], "matches": [{"subject": self.subject, "similarity": 0.8123}],
            },
            seconds=0.2, usage=Usage(cost=0.0),
        )  # fmt: skip
        store.put_score(key, score, scorer)
