"""Train a small model on a CPU to search and to look: fine-tuning, then GRPO, with controls.

    python examples/train_demo.py                      # three seeds and two controls
    python examples/train_demo.py --seeds 1 --steps 25 --arms real,constant

The task is `things`: `draw a ko ra` names a thing whose colour stands in no text; only a picture that `image_search`
finds shows it. The model is a Qwen3-VL of 217,000 random weights. Each step is a command that a user would type, and
the code is that which trains the real model:

1. `knowgen trajectories make`: the policy `things_teacher` answers in made-up worlds. It answers half of the prompts
   without a search, and takes three of six colours for others.
2. `knowgen train sft`: the model learns the protocol from it, and its faults.
3. `knowgen train grpo`: the model learns from rewards to search always and to name what it sees. Controls are trained
   the same way: with a constant reward, and with the images kept out of the gradient.
4. The share of right answers in a world whose names are in no training data, also with the search of another query and
   with blank images.

The figures are written to `summary.json`, the curves to `curves.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
AGENT = {"prompt": "short", "date": "2026-01-01", "tools": "image_search", "rounds": 2, "tool_calls": 2}
"""Arguments of the agent, as in the bundled configurations `sft/cpu-mini` and `grpo/cpu-mini`."""

ARMS = {
    "real": [],
    "constant": ["grpo.reward.constant=0.5"],
    "blind": ["grpo.images_in_gradient=false", "grpo.old_logprobs=trainer"],
}
"""Trainings by name, with what each changes in the configuration."""

LABELS = {
    "real": "reward of the answer",
    "constant": "control: constant reward",
    "blind": "control: images kept out of the gradient",
}
COLOURS = {"real": "#0072B2", "constant": "#777777", "blind": "#D55E00"}

WORLDS, NAMES, TESTED = 5, 900, 400
"""Worlds of the teacher, names in each, and prompts of the test."""

FAILED_SAMPLES = 6
"""Exit code of a run with samples that have no image."""

CHANCE = 1 / 6
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % quantile of Student's t by number of seeds."""


def main() -> int:
    """Train and test all arms on all seeds, and print and draw what came out."""
    parser = argparse.ArgumentParser(description="Train a small model on a CPU to search and to look.")
    parser.add_argument("--out", type=Path, default=Path("reports/train_demo"), help="folder of all results")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=100, help="steps of GRPO")
    parser.add_argument("--sft-steps", type=int, default=500, help="steps of fine-tuning")
    parser.add_argument("--arms", default=",".join(ARMS), help="trainings, with commas between them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="commands that run at once")
    parser.add_argument("--measure", type=int, metavar="SEED", help=argparse.SUPPRESS)
    given = parser.parse_args()
    arms, seeds = [name for name in given.arms.split(",") if name], list(range(given.seeds))
    if given.measure is not None:
        print(json.dumps(asyncio.run(_measured(given.out, given.measure, arms))))
        return 0
    started = time.monotonic()
    print(f"{len(seeds)} seeds, {len(arms)} trainings each; minutes go by between two lines", flush=True)
    with ThreadPoolExecutor(max(1, given.workers)) as pool:
        list(pool.map(lambda seed: _fine_tune(given.out, seed, given.sft_steps), seeds))
        jobs = [(seed, arm) for seed in seeds for arm in arms]
        list(pool.map(lambda job: _train(given.out, job[0], job[1], given.steps), jobs))
        figures = list(pool.map(lambda seed: _measure(given.out, seed, arms), seeds))
    summary = summarize(figures, arms)
    summary |= {"steps": given.steps, "seconds": round(time.monotonic() - started, 1)}
    curves = {arm: [rights_by_step(_folder(given.out, seed) / arm) for seed in seeds] for arm in arms}
    (given.out / "summary.json").write_text(json.dumps({**summary, "curves": curves}, indent=1) + "\n")
    (given.out / "curves.svg").write_text(drawn(curves), encoding="utf-8")
    print_summary(summary, curves)
    print(f"figures  {given.out / 'summary.json'}\ncurves   {given.out / 'curves.svg'}")
    for fallback in ("draw", "fail"):
        _evaluate(given.out, fallback)
    return 0


# ------------------------------------------------------------------------------------------------------------- training


def _folder(out: Path, seed: int) -> Path:
    return out / f"seed{seed}"


def _fine_tune(out: Path, seed: int, steps: int) -> None:
    """Make conversations in worlds with an even seed, and fine-tune the model on them."""
    folder = _folder(out, seed)
    agent = [word for name, value in AGENT.items() for word in ("-g", f"{name}={value}")]
    sources = []
    for number in range(WORLDS):
        conversations = folder / "conversations" / str(number)
        world = f"things:{NAMES}:{2 * (10 * seed + number)}"
        _knowgen(
            "trajectories", "make", "--task", world, "--policy", "things_teacher", "--painter", "things_painter",
            *agent, "--seed", seed, "-o", conversations,
        )  # fmt: skip
        sources.append({"path": str(conversations)})
    _knowgen(
        "train", "sft", "--config", "sft/cpu-mini", f"model.path=mini:{seed}", f"seed={seed}",
        f"sft.conversations={json.dumps(sources)}", f"sft.max_steps={steps}", "-o", folder / "sft",
    )  # fmt: skip
    print(f"seed {seed}: made conversations, and fine-tuned on them", flush=True)


def _train(out: Path, seed: int, arm: str, steps: int) -> None:
    """Train the fine-tuned model in a world that the teacher did not have, with the same names in other colours."""
    folder = _folder(out, seed)
    prompts = [{"task": f"things:{NAMES}:{2 * (10 * seed + WORLDS)}"}]
    _knowgen(
        "train", "grpo", "--config", "grpo/cpu-mini", f"model.path={folder / 'sft' / 'model'}", f"seed={seed}",
        f"grpo.prompts={json.dumps(prompts)}", f"grpo.max_steps={steps}", *ARMS[arm], "-o", folder / arm,
    )  # fmt: skip
    print(f"seed {seed}: trained {steps} steps ({LABELS[arm]})", flush=True)


def _knowgen(*words: object) -> None:
    """Run a command of knowgen on one core; a second call of a command that was complete does nothing."""
    _run([sys.executable, "-m", "knowgen", *map(str, words)])


def _run(command: Sequence[str], accepted: Sequence[int] = (0,)) -> str:
    """Run a command on one core, and return what it printed.

    Args:
        command: The command.
        accepted: Exit codes that are no error.

    Raises:
        SystemExit: It failed.
    """
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


# -------------------------------------------------------------------------------------------------------------- testing


def _measure(out: Path, seed: int, arms: Sequence[str]) -> dict[str, float]:
    """Return the shares of right answers of all models of a seed, measured in a process of its own."""
    command = [sys.executable, __file__, "--out", str(out), "--measure", str(seed), "--arms", ",".join(arms)]
    figures: dict[str, float] = json.loads(_run(command).splitlines()[-1])
    return figures


async def _measured(out: Path, seed: int, arms: Sequence[str]) -> dict[str, float]:
    from knowgen.training.mini_model import build_mini
    from knowgen.training.models import export_model

    folder = _folder(out, seed)
    model, processor = build_mini(seed)
    export_model(model, processor, folder / "untrained")
    world = f"things:{2 * seed + 1}"
    figures = {"untrained": await right_answers(folder / "untrained", world, world)}
    figures["before"] = await right_answers(folder / "sft" / "model", world, world)
    for arm in arms:
        figures[arm] = await right_answers(folder / arm / "model", world, world)
    if "real" in arms:
        for control in ("shuffled", "blank"):
            figures[control] = await right_answers(folder / "real" / "model", world, f"{control}:{world}")
    return figures


async def right_answers(weights: Path, world: str, search: str) -> float:
    """Return the share of prompts that a model answers with the right colour, of a world with an odd seed.

    Args:
        weights: Folder of the model.
        world: Name of the world as `things:SEED`.
        search: Search backend.
    """
    from knowgen.agents.gen_searcher import GenSearcher
    from knowgen.agents.policies.hf import HfPolicy
    from knowgen.tasks.load import load_task

    task = load_task(world.replace(":", f":{TESTED}:"))
    policy = HfPolicy(str(weights), dtype="float32", device="cpu", batch_size=TESTED)
    agent = GenSearcher(policy, search, **AGENT, temperature=1.0, top_p=1.0, max_new_tokens=16)  # type: ignore[arg-type]
    samples = list(task.samples())
    try:
        found = await asyncio.gather(*(agent.run(one.prompt, session=one.id, seed=0) for one in samples))
    finally:
        await agent.close()
    subjects = [task.truth(one.id).subjects[0] for one in samples]
    return sum(is_right(each.gen_prompt or "", one) for each, one in zip(found, subjects, strict=True)) / len(samples)


def is_right(gen_prompt: str, subject: dict[str, Any]) -> bool:
    """Return whether a prompt names the colour of a thing and no other."""
    from knowgen.worlds.things.painter import stated_colours

    return stated_colours(gen_prompt) == [subject["colour"]]


def rights_by_step(folder: Path) -> list[float]:
    """Return the share of right answers in the rollouts of each step of a training, from its stored episodes."""
    from knowgen.store.training_run import TrainingRun
    from knowgen.worlds.things.world import things_of

    run, shares = TrainingRun(folder), []
    for step in run.episode_steps():
        right = []
        for episode in run.episodes(step):
            seed = int(episode.key.partition("/")[0].rpartition(":")[2])
            subject = {"colour": things_of(seed)[episode.sample_id.replace("-", " ")]}
            right.append(is_right(episode.answer.prompt if episode.answer is not None else "", subject))
        shares.append(sum(right) / len(right))
    return shares


def _evaluate(out: Path, fallback: str) -> None:
    """Evaluate the trained model as any system, with images of the answers; print its row of the table.

    Args:
        out: Folder of all results.
        fallback: What is generated without a usable answer: `draw` for the prompt of the sample, `fail` for nothing.
    """
    weights, folder = _folder(out, 0) / "real" / "model", out / f"evaluated-{fallback}"
    if not weights.is_dir():
        return
    arguments = {"policy": f"hf:{weights}", **AGENT, "max_new_tokens": 16, "painter": "things_painter"}
    words = [word for name, value in arguments.items() for word in ("-g", f"{name}={value}")]
    command = [
        sys.executable, str(ROOT / "run_eval.py"), "--task", f"things:{TESTED}:1", "--generator", "gen_searcher",
        *words, "-g", f"fallback={fallback}", "-g", "policy.batch_size=64", "--out", str(folder), "--fresh",
    ]  # fmt: skip
    printed = _run(command, accepted=(0, FAILED_SAMPLES))
    lines = printed.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("system"))
    print(f"\nrun_eval.py, fallback={fallback}", *lines[table : table + 3], sep="\n")


# ------------------------------------------------------------------------------------------------------------- figures


def summarize(figures: Sequence[dict[str, float]], arms: Sequence[str]) -> dict[str, Any]:
    """Return the figures of all seeds, with the differences between arms paired by seed.

    Args:
        figures: Shares of right answers by name, for each seed.
        arms: Names of the trainings.
    """
    by_name = {name: [round(one[name], 4) for one in figures] for name in figures[0]}
    summary: dict[str, Any] = {
        "untrained": by_name["untrained"],
        "arms": {arm: {"before": by_name["before"], "after": by_name[arm]} for arm in arms},
        "controls": {name: by_name[name] for name in ("shuffled", "blank") if name in by_name},
        "chance": round(CHANCE, 4),
    }
    pairs = [("real", arm) for arm in arms if arm != "real" and "real" in arms]
    summary["differences"] = {f"{one} - {other}": paired(by_name[one], by_name[other]) for one, other in pairs}
    return summary


def paired(ones: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Return the mean difference with its 95 % interval (Student's t over seeds); no interval for one seed."""
    differences = [one - other for one, other in zip(ones, others, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    if count not in T_95:
        return {"mean": round(mean, 4), "interval": None}
    deviation = (sum((one - mean) ** 2 for one in differences) / (count - 1)) ** 0.5
    half = T_95[count] * deviation / count**0.5
    return {"mean": round(mean, 4), "interval": [round(mean - half, 4), round(mean + half, 4)]}


def print_summary(summary: dict[str, Any], curves: dict[str, list[list[float]]]) -> None:
    """Print the figures as a table, and the curves as rows of numbers."""
    arms = summary["arms"]
    rows = [("untrained", summary["untrained"]), ("after fine-tuning", next(iter(arms.values()))["before"])]
    rows += [(f"after GRPO, {LABELS[arm]}", values["after"]) for arm, values in arms.items()]
    words = {"shuffled": "the same model, search of another query", "blank": "the same model, blank images"}
    rows += [(words[name], values) for name, values in summary["controls"].items()]
    print(f"\nright answers in a world of unseen names (chance {CHANCE:.3f})")
    for label, values in rows:
        print(f"  {label:58}{sum(values) / len(values):.3f}   {' '.join(f'{value:.3f}' for value in values)}")
    for name, value in summary["differences"].items():
        interval = value["interval"]
        shown = f", 95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}" if interval else ""
        print(f"  {name:58}{value['mean']:+.3f}{shown}")
    print("\nright answers in rollouts, mean of ten steps")
    for arm, seeds in curves.items():
        means = [sum(column) / len(column) for column in zip(*seeds, strict=True)]
        tens = [means[start : start + 10] for start in range(0, len(means), 10)]
        print(f"  {arm:10}{' '.join(f'{sum(ten) / len(ten):.2f}' for ten in tens)}")
    print()


def drawn(curves: dict[str, list[list[float]]]) -> str:
    """Return the curves as SVG: mean over the seeds, smoothed over five steps, with the range of the seeds."""
    width, height, left, top = 720, 320, 50, 46
    steps = max(len(seed) for seeds in curves.values() for seed in seeds)

    def place(step: float, share: float) -> str:
        x = left + step / max(1, steps - 1) * (width - left - 20)
        return f"{x:.1f},{top + (1 - share) * (height - top - 40):.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 70}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height + 70}" fill="white"/>',
        f'<text x="{left}" y="24" font-size="15">Right answers in rollouts, by step of GRPO</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(0, tick).split(",")
        lines.append(f'<line x1="{x}" x2="{width - 20}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        lines.append(f'<text x="{left - 8}" y="{float(y) + 4}" font-size="12" text-anchor="end">{tick:g}</text>')
    chance = f"{place(0, CHANCE)} {place(steps - 1, CHANCE)}"
    lines.append(f'<polyline points="{chance}" stroke="#000" stroke-dasharray="3 4"/>')
    lines.append(f'<text x="{left}" y="{height - 20}" font-size="12">step 1</text>')
    lines.append(f'<text x="{width - 20}" y="{height - 20}" font-size="12" text-anchor="end">{steps}</text>')
    for number, (arm, seeds) in enumerate(curves.items()):
        columns = list(zip(*map(smoothed, seeds), strict=True))
        band = [place(step, max(column)) for step, column in enumerate(columns)]
        band += [place(step, min(column)) for step, column in reversed(list(enumerate(columns)))]
        mean = [place(step, sum(column) / len(column)) for step, column in enumerate(columns)]
        colour, line = COLOURS[arm], height + 4 + 20 * number
        lines.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.18"/>')
        lines.append(f'<polyline points="{" ".join(mean)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<rect x="{left}" y="{line - 9}" width="18" height="4" fill="{colour}"/>')
        lines.append(f'<text x="{left + 26}" y="{line}" font-size="13">{LABELS[arm]}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def smoothed(values: Sequence[float], window: int = 5) -> list[float]:
    """Return the mean of up to `window` values around each value."""
    around = [values[max(0, place - window // 2) : place + window // 2 + 1] for place in range(len(values))]
    return [sum(each) / len(each) for each in around]


if __name__ == "__main__":
    sys.exit(main())
