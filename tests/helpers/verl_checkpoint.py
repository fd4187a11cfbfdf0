"""Save a checkpoint of two processes as verl does: python -m tests.helpers.verl_checkpoint FOLDER, by torchrun.

The model of FOLDER/model has its vision tower frozen and its head multiplied by 2, is sharded with FSDP2, and is saved
by verl's manager of checkpoints into FOLDER/checkpoints/global_step_3/actor.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForImageTextToText, AutoProcessor
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from knowgen.training.models import freeze


def main(folder: Path) -> None:
    """Save the checkpoint."""
    torch.distributed.init_process_group("gloo")
    model: Any = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    freeze(model, ("vision", "projector"), "test")
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",))
    for layer in [*model.model.visual.blocks, *model.model.language_model.layers]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    manager = FSDPCheckpointManager(
        model=model,
        optimizer=None,
        lr_scheduler=None,
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
        checkpoint_config={"save_contents": ["model"], "load_contents": ["model"]},
    )
    manager.save_checkpoint(str(folder / "checkpoints" / "global_step_3" / "actor"), None, 3)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
