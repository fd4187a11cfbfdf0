"""One process of a distributed training of a tiny model: `python -m tests.helpers.grpo_process WHAT FOLDER`."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from tests.helpers.grpo import Training, tiny_config, tiny_policy_model
from tests.helpers.processes import PATIENCE, python_environment, start_python

GROUP = 4


def options() -> dict[str, Any]:
    """Return rollouts of which one service fails, and where one prompt shows no pictures."""
    return {
        "fails": lambda key, number: "the judge is not there" if (key, number) == ("test/0-0", 1) else "",
        "shows": lambda key, number: not key.endswith("-2"),
    }


def training(folder: Path, micro_batch: int) -> Training:
    """Return a training of three prompts a step: with two processes, the second group lies in both."""
    config = tiny_config(
        max_steps=2,
        micro_batch=micro_batch,
        evaluation={"every": 1},
        optimizer={"learning_rate": 1e-5},  # so small that rounding changes no later sample
        rollout={"prompts": 3, "group": GROUP},
    )
    return Training(folder, config, options(), size=3)


def run(what: str, folder: Path, processes: int = 2) -> None:
    """Run processes that take part in one training, and wait for them.

    Raises:
        AssertionError: One of them failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        start_python(
            "-m",
            "tests.helpers.grpo_process",
            what,
            folder,
            env=python_environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(processes),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                OMP_NUM_THREADS="1",
            ),
        )
        for rank in range(processes)
    ]
    outputs = []
    try:
        for process in started:
            outputs.append(process.communicate(timeout=10 * PATIENCE)[1])
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(output[-3000:] for output in outputs)


def ddp(folder: Path) -> None:
    """Train with one process for each half of the rows, and write what the main process logs."""
    from knowgen.training.backends.trl import TrlBackend

    rank = int(os.environ["RANK"])
    part = training(folder, micro_batch=3)
    part.evaluate = lambda step, folder: float(step)
    tools = part.tools()
    TrlBackend(part.config).train_model(tools, tiny_policy_model())
    assert part.rollouts is not None
    (folder / f"rank-{rank}.json").write_text(
        json.dumps(
            {
                "figures": part.figures,
                "advantages": {
                    step: [episode.advantage for episode in episodes] for step, episodes in part.episodes.items()
                },
                "gaps": {step: [episode.gap for episode in episodes] for step, episodes in part.episodes.items()},
                "numbers": {step: [episode.number for episode in episodes] for step, episodes in part.episodes.items()},
                "keys": [keys for _, keys, _ in part.rollouts.steps],
            }
        )
    )


def sharded(folder: Path) -> None:
    """Compute the gradient of a step with the weights of the language model sharded, and write it.

    Each process has half of the rows, as micro-batches of one. The trainer of each is a trainer of its own, so that
    what is sharded is the loss and not the sampling.
    """
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from tests.helpers.grpo_loss import first_step, micro_batches, move

    rank, processes = int(os.environ.pop("RANK")), int(os.environ.pop("WORLD_SIZE"))
    port, address = int(os.environ.pop("MASTER_PORT")), os.environ.pop("MASTER_ADDR")
    os.environ.pop("LOCAL_RANK")
    step = first_step(shard_training(folder / f"process-{rank}"), tiny_policy_model())
    move(step.model, 0.02)
    store = dist.TCPStore(address, port, processes, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    for layer in step.model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    for block in step.model.model.visual.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(step.model, mesh=mesh)
    total = 0.0
    rows = micro_batches(step.batch, 8)
    for batch in rows[rank * 4 : rank * 4 + 4]:
        loss = step.loss_of(batch) / 4
        loss.backward()
        total += float(loss.detach())
    gradient = {n: p.grad.full_tensor() for n, p in step.model.named_parameters() if p.grad is not None}
    mean = torch.tensor(total)
    dist.all_reduce(mean)
    if rank == 0:
        save_file({"loss": mean / processes, **gradient}, folder / "gradient.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def shard_training(folder: Path) -> Training:
    """Return a training in which the rows of the second process show no pictures."""
    return Training(folder, tiny_config(micro_batch=1), {"shows": lambda key, number: key == "test/0-0"})


def ddp_stop(folder: Path) -> None:
    """Train until a service is gone in one of the processes."""
    from knowgen.core.errors import BudgetReachedError
    from knowgen.training.backends.trl import TrlBackend

    rank = int(os.environ["RANK"])
    part = training(folder, micro_batch=3)

    def before(step: int) -> None:
        if step == 2 and rank == 1:
            raise BudgetReachedError("the budget is spent")

    part.options["before"] = before
    result = TrlBackend(part.config).train_model(part.tools(), tiny_policy_model())
    (folder / f"rank-{rank}.json").write_text(json.dumps([result.steps, result.stopped]))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    {"ddp": ddp, "ddp_stop": ddp_stop, "sharded": sharded}[sys.argv[1]](Path(sys.argv[2]))
