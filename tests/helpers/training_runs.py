"""Directories of trainings with made-up figures and episodes, written as a training writes them."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from knowgen.agents.records import SeenImage, Step, ToolCall
from knowgen.core.records import (
    AgentAnswer,
    AnswerStatus,
    Generation,
    GenerationStatus,
    ImageRef,
    ParsedScore,
    Score,
    ScoreStatus,
    Usage,
)
from knowgen.stats.summary import OVERALL, Coverage, Figure, Slice, Summary
from knowgen.store.training_run import EpisodeRecord, TrainingRun

ENDINGS = ("answer", "no_answer", "answer_parse_failed", "repeated_response")
FAILED = "vlm:judge: HTTP 503 after 4 tries"


def stored_image(run: TrainingRun, colour: tuple[int, int, int], width: int = 48) -> ImageRef:
    """Store an image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, 32), colour).save(buffer, "PNG")
    return run.images.put(buffer.getvalue(), width=width, height=32, format="PNG")


def answered(run: TrainingRun, step: int, number: int, good: bool, words: str) -> AgentAnswer:
    """Return an answer after an image search; a bad one ends without an answer."""
    seen = SeenImage(id="IMG_001", image=stored_image(run, (40 * number % 256, 90, 160)), title=words)
    search = Step(
        round=1,
        thought=f"Where is {words}?",
        reply=f"<think>Where is {words}?</think>",
        finish="stop",
        calls=(ToolCall(name="image_search", arguments={"query": words, "top_k": 1}),),
        observation=f"IMG_001: {words}",
        images=("IMG_001",),
        new_images=(seen,),
        policy_seconds=0.5,
        tool_seconds=0.25,
        policy_usage=Usage(input_tokens=100, output_tokens=20),
    )
    last = Step(round=2, thought=f"It is as at step {step}.", reply="<answer>", finish="stop")
    steps = tuple(each.model_dump(mode="json") for each in (search, last))
    if not good:
        return AgentAnswer(status=AnswerStatus.NONE, ending="no_answer", reason=words, trajectory=steps, seconds=1.0)
    note = {"img_id": "IMG_001", "title": words, "note": f"the colour of {words}"}
    return AgentAnswer(
        ending="answer", prompt=f"A picture of {words}.", references=(seen.image,), reference_notes=(note,),
        trajectory=steps, images=(seen.image,), seconds=1.0,
    )  # fmt: skip


class TrainingMaker:
    """Writes directories of trainings.

    Args:
        folder: Folder that they are put in.
        words: Text that stands wherever a model, a service or a user could have written.
    """

    def __init__(self, folder: Path, words: str = "the lighthouse of Teld") -> None:
        self.folder, self.words = folder, words

    def run(
        self,
        name: str = "real",
        steps: int = 40,
        *,
        gain: float = 0.5,
        prompts: int = 4,
        group: int = 3,
        episodes: Sequence[int] | None = None,
        evaluated: Sequence[int] = (0, 20, 40),
        stopped: str | None = "",
    ) -> TrainingRun:
        """Write a training with GRPO whose reward rises by `gain`, and return its directory.

        Of every tenth step one episode is masked. Prompts come again every second step.
        """
        run = TrainingRun(self.folder / name)
        config = {
            "method": "grpo", "seed": 0, "model": {"path": self.words, "dtype": "float32"},
            "optimizer": {"learning_rate": 3e-4}, "grpo": {"rollout": {"prompts": prompts, "group": group}},
        }  # fmt: skip
        description = {"method": "grpo", "config": config, "model": self.words, "versions": {"torch": "2.14.1"}}
        run.describe(description if stopped is None else {**description, "stopped": stopped, "steps": steps})
        rng = random.Random(name)
        for step in range(1, steps + 1):
            level = 0.2 + gain * step / steps
            run.add_metrics(step, self._figures(rng, step, level))
            if episodes is None or step in episodes:
                run.put_episodes(step, self._episodes(run, step, level, prompts, group))
        for step in evaluated:
            self._evaluate(run, step, 0.2 + gain * step / max(1, steps))
        return run

    @staticmethod
    def _figures(rng: random.Random, step: int, level: float) -> dict[str, float]:
        noisy = min(1.0, max(0.0, level + rng.gauss(0, 0.05)))
        failing = (1 - level) / 3
        return {
            "reward": noisy, "reward_image": noisy * 0.9, "reward_text": min(1.0, noisy * 1.1), "reward_std": 0.2,
            "masked": 1 / 12 if step % 10 == 0 else 0.0, "without_spread": 0.1, "searched": level,
            "ending/answer": level, **{f"ending/{each}": failing for each in ENDINGS[1:]},
            "calls": 1 + level, "references": 2 * level, "images_seen": 3.0, "tokens_sampled": 120 + 40 * level,
            "tokens_context": 2400.0, "gap_mean": 1e-7, "gap_max": 9e-7 + 1e-8 * step,
            "loss": math.nan if step == 3 else rng.gauss(0, 0.01), "grad_norm": 1 + rng.random(), "learning_rate": 1e-6,
            "clipped_low": 0.01, "clipped_high": 0.02, "seconds": 12.0 + rng.random(), "share/agent": 0.5,
            "share/image": 0.2, "share/reward": 0.1, "share/gradient": 0.2, "cost": 0.01, "cost_total": 0.01 * step,
        }  # fmt: skip

    def _episodes(self, run: TrainingRun, step: int, level: float, prompts: int, group: int) -> list[EpisodeRecord]:
        rng = random.Random(step)
        records = []
        for place in range(prompts):
            key = f"things/{place + prompts * (step % 2)}"
            for number in range(group):
                good = rng.random() < level
                masked = FAILED if step % 10 == 0 and place == 1 and number == 0 else ""
                records.append(self._episode(run, step, key, number, good, masked))
        return records

    def _episode(self, run: TrainingRun, step: int, key: str, number: int, good: bool, masked: str) -> EpisodeRecord:
        words = f"{self.words} {key}"
        generation = score = None
        if good:
            image = stored_image(run, (200, 30 * number % 256, step % 256), 64)
            generation = Generation(sample_id=key, status=GenerationStatus.OK, image=image)
            parsed = ParsedScore(status=ScoreStatus.OK, values={"similarity": 0.8}, rationale=self.words)
            score = Score(sample_id=key, scorer="vlm:judge", status=ScoreStatus.OK, strict=parsed)
        return EpisodeRecord(
            step=step, key=key, number=number, sample_id=key, prompt=f"Draw {words}.",
            answer=answered(run, step, number, good, words), generation=generation,
            reward=None if masked else float(good), image=0.8 if good else None, text=1.0 if good else None,
            masked=masked and f"{masked} {self.words}", reason="" if good else "the answer has 0 usable references",
            advantage=None if masked else (0.7 if good else -0.7), sampled=40, context=900, gap=3e-7,
            scores=(score,) if score is not None else (), seconds={"agent": 1.0, "image_reward": 0.5}, cost=0.001,
        )  # fmt: skip

    def _evaluate(self, run: TrainingRun, step: int, value: float) -> None:
        run.add_metrics(step, {"headline": value}, "evaluation")
        figure = Figure(value=value, low=max(0.0, value - 0.06), high=min(1.0, value + 0.06), n=200)
        whole = Slice(kind="all", name="", samples=200, coverage=Coverage(expected=200, scored=200),
                      figures={OVERALL: figure})  # fmt: skip
        summary = Summary(
            system="agent", task="things", task_version="1", scorer="things_check", scorer_version="1",
            protocol="strict", protocol_version="1", dimensions=("similarity",), slices=(whole,), fit_for_board=True,
        )  # fmt: skip
        folder = run.evaluation(step)
        (folder / "report").mkdir(parents=True)
        (folder / "report" / "index.html").write_text("<!doctype html><title>run</title>")
        (folder / "summary.json").write_text('{"summaries": [' + summary.model_dump_json() + "]}")
