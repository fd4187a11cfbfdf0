"""The agent loop that verl's workers run: one episode for each prompt and member of its group.

verl finds the class by its configuration (`VerlFiles.loops`), and makes an object for each episode. Importing this
module needs verl.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from knowgen.training.backends.contract import Episode
from knowgen.training.backends.verl.advantages import MASKED
from knowgen.training.backends.verl.worker import EpisodeWorker, worker_of
from knowgen.training.config import grpo_of


class EpisodeLoop(AgentLoopBase):  # type: ignore[misc]  # verl has no type information
    """Runs an episode of the training in `folder`.

    Args:
        folder: Directory of the training.
        arguments: What verl gives every agent loop.
    """

    def __init__(self, *, folder: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._folder = Path(folder)

    async def run(self, sampling_params: dict[str, Any], **fields: Any) -> AgentLoopOutput:
        """Return an episode as verl takes it.

        Args:
            sampling_params: Not used: the training's configuration says how replies are sampled.
            fields: Fields of the prompt's row, the step, and the number within the group.
        """
        worker = worker_of(self._folder, self.server_manager, self.processor)
        info = fields["extra_info"]
        step = int(fields.get("global_steps", 0))
        episode = await worker.episode(
            step=step, row=int(info["index"]), place=int(info["place"]), number=int(fields.get("session_id", 0))
        )
        return output_of(episode, worker, step)


def output_of(episode: Episode, worker: EpisodeWorker, step: int) -> AgentLoopOutput:
    """Return an episode as verl takes it.

    An episode that could not be scored has a mask of zeros, and the reward `MASKED`, which keeps it out of the
    advantages of its group. One whose ending is masked counts for those, and has a mask of zeros too. A row without
    images needs none: verl runs the vision tower for it on pixels of its own.

    Raises:
        KnowgenError: The servers report no log-probabilities.
    """
    trajectory, reward = episode.trajectory, episode.reward
    row = worker.rows.row(episode)
    ending = trajectory.ending.value if trajectory is not None and trajectory.ending is not None else ""
    left_out = reward.masked or ending in grpo_of(worker.config).masked_endings
    versions = [int(segment.weights) for segment in (trajectory.segments if trajectory else ()) if segment.weights]
    seconds = episode.seconds
    images = [image.open() for image in row.images if image is not None]
    return AgentLoopOutput(
        prompt_ids=row.prompt,
        response_ids=row.completion,
        response_mask=[0] * len(row.sampled) if left_out else row.sampled,
        response_logprobs=row.logprobs,
        multi_modal_data={"images": images} if images else {},
        reward_score=MASKED if reward.value is None else reward.value,
        num_turns=len(trajectory.messages) if trajectory is not None else 0,
        metrics=AgentLoopMetrics(
            generate_sequences=seconds.get("agent", 0.0),
            compute_score=max((seconds.get(part, 0.0) for part in ("image_reward", "text_reward")), default=0.0),
        ),
        extra_fields={
            "ending": ending,
            "masked": reward.reason if reward.masked else "",
            "min_global_steps": min(versions, default=max(0, step - 1)),
            "max_global_steps": max(versions, default=max(0, step - 1)),
            "reward_extra_info": {
                "masked": float(reward.masked),
                "reward_image": _number(reward.image),
                "reward_text": _number(reward.text),
            },
        },
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
