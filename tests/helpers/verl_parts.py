"""Parts of a training with verl that run without GPUs: a client of servers over a tiny model, a search, a judge."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from knowgen.agents.policies.contract import Policy
from knowgen.core.errors import ServiceUnavailableError
from knowgen.core.records import Generation, GroundTruth, ParsedScore, Sample, Score, ScoreStatus
from knowgen.core.spec import ScorerSpec
from knowgen.engine.components import ScorerHandle
from knowgen.scorers.contract import ScorerCapabilities
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.store.images import ImageFolder
from knowgen.training.backends.contract import TrainingPrompt
from knowgen.training.config import TrainingConfig
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.rollouts import AgentRollouts, RolloutParts
from knowgen.training.seeds import episode_seed
from tests.helpers.episodes import MemoryLedger
from tests.helpers.search_agents import answer, call, image_hits

SEARCHING = [
    call("image_search", {"query": "a boat"}),
    answer("The red boat of the first reference image.", ["IMG_001"]),
]
"""Replies of an episode that looks before it answers, and gets reward 1."""

GUESSING = [answer("A blue boat.")]
"""Replies of an episode without references, which gets reward 0 and has no image."""

WANDERING = ["I wonder.", "I wonder still.", "And still."]
"""Replies of an episode that never answers, which gets reward 0."""

SCRIPTS = (SEARCHING, GUESSING, WANDERING)
"""Replies by the number of the episode within its group."""


class PictureSearch:
    """A search backend that finds pictures.

    Args:
        folder: Where they are written.
    """

    version = "pictures"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        return await asyncio.to_thread(image_hits, self.folder, 2)

    async def open(self, url: str) -> Page:
        return Page(url=url, title="Nothing", text="Nothing.")


class Judge:
    """Scores an answer by whether it says red; it cannot be reached where the prompt says outage."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        if "outage" in sample.prompt:
            raise ServiceUnavailableError("no connection", busy=True)
        value = 1.0 if "red" in (generation.used_prompt or "") else 0.0
        parsed = ParsedScore(status=ScoreStatus.OK, values={"answer": value})
        return Score(
            sample_id=sample.id, repeat=generation.repeat, scorer="judge", status=ScoreStatus.OK, strict=parsed
        )


def rollouts(config: TrainingConfig, folder: Path, policy: Policy) -> AgentRollouts:
    """Build the rollouts of a process, as `TrainingTools.worker_rollouts` names it."""
    judge = ScorerHandle(ScorerSpec(name="judge"), ScorerCapabilities("score", needs=frozenset()), Judge)
    return AgentRollouts(
        config,
        policy,
        RolloutParts(text=judge),
        folder=folder,
        images=EpisodeImages(ImageFolder(folder / "images")),
        ledger=MemoryLedger(),
    )


def prompts_of(*names: str) -> list[TrainingPrompt]:
    """Return prompts of a training."""
    return [
        TrainingPrompt(
            f"boats/{name}",
            Sample(id=name, prompt=f"Draw {name}."),
            GroundTruth(sample_id=name, required_text=("SECRET",)),
        )
        for name in names
    ]


def verl_config(folder: Path, **rollout: Any) -> TrainingConfig:
    """Return a configuration whose episodes take the scripted replies."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    return TrainingConfig.model_validate(
        {
            "method": "grpo",
            "backend": "verl",
            "model": {"path": str(folder / "model"), "attention": "sdpa", "dtype": "float32"},
            "agent": {"search": "tests.helpers.verl_parts:PictureSearch", "search.folder": str(pictures), "rounds": 2},
            "grpo": {
                "masked_endings": ["no_answer"],
                "reward": {"text_weight": 1.0},
                "services": {"tries": 1},
                "rollout": {
                    "prompts": 2, "group": 3, "max_prompt_tokens": 5000, "max_completion_tokens": 1500,
                    "max_new_tokens": 400, "temperature": 1.0, "top_p": 1.0, **rollout,
                },
            },
            "verl": {"workers": 1, "gpus_per_node": 1},
        }
    )  # fmt: skip


class ScriptedServers:
    """verl's client over a tiny model: replies as scripted, with the log-probabilities that the model gives them.

    Args:
        folder: Folder of the model.

    Attributes:
        requests: What it was asked, one entry a request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[dict[str, Any]] = []
        self._calls: Counter[str] = Counter()
        self._loaded: Any = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], image_data: Any = None
    ) -> Any:
        self.requests.append({"id": request_id, "parameters": sampling_params, "images": len(image_data or [])})
        script = SCRIPTS[number_of(request_id)]
        number = self._calls[request_id]
        self._calls[request_id] += 1
        model, processor = self._model()
        text = script[min(number, len(script) - 1)]
        ids = [*processor.tokenizer.encode(text, add_special_tokens=False), processor.tokenizer.eos_token_id]
        values = token_logprobs(model, processor, [*prompt_ids, *ids], image_data or [])[-len(ids) :]
        return SimpleNamespace(
            token_ids=ids, log_probs=values, stop_reason="completed", extra_fields={"global_steps": 4}
        )

    def _model(self) -> Any:
        if self._loaded is None:
            from transformers import AutoModelForImageTextToText, AutoProcessor

            model = AutoModelForImageTextToText.from_pretrained(self.folder, dtype="float32").eval()
            self._loaded = model, AutoProcessor.from_pretrained(self.folder)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}


def number_of(session: str) -> int:
    """Return the number within its group of an episode, from the name of its trajectory."""
    step, _, rest = session.partition("/")
    key, _, seed = rest.rpartition("/")
    return next(number for number in range(len(SCRIPTS)) if episode_seed(0, int(step), key, number) == int(seed))


def token_logprobs(model: Any, processor: Any, ids: list[int], images: list[Any]) -> list[float]:
    """Return the log-probability of each id but the first, by one pass of the model."""
    import torch

    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if images:
        pixels = processor.image_processor(images=images, return_tensors="pt")
        inputs |= {"pixel_values": pixels["pixel_values"], "image_grid_thw": pixels["image_grid_thw"]}
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == processor.image_token_id).int()
    with torch.inference_mode():
        logits = model(**inputs).logits.float()
    values = torch.log_softmax(logits[0, :-1], dim=-1).gather(-1, torch.tensor(ids[1:]).unsqueeze(-1))
    return [float(value) for value in values.squeeze(-1)]


def written(folder: Path, config: TrainingConfig, prompts: list[TrainingPrompt]) -> Any:
    """Write the files of a training with verl, and return them."""
    from knowgen.training.backends.verl.files import VerlFiles

    files = VerlFiles(folder)
    files.begin(config, "tests.helpers.verl_parts:rollouts")
    files.put_prompts([prompts])
    return files


def json_lines(path: Path) -> list[Any]:
    """Return the objects of a file with one on each line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
