"""Save a checkpoint of two processes as verl does, by torchrun: -m tests.helpers.verl_checkpoint FOLDER [adapters].

The model of FOLDER/model has its vision tower frozen and its head multiplied by 2, or gets adapters with random
weights. It is sharded with FSDP2, and saved by verl's manager of checkpoints into the folder
FOLDER/checkpoints/global_step_3/actor. What its export must contain is written to FOLDER/expected.pt.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForImageTextToText, AutoProcessor
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from knowgen.training.models import freeze


def with_adapters(model: Any) -> Any:
    """Return a model with adapters as verl makes them, whose weights change its outputs."""
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(0)  # the same in both processes
    settings = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model, settings)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def main(folder: Path, adapters: bool) -> None:
    """Save the checkpoint."""
    torch.distributed.init_process_group("gloo")
    model: Any = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    freeze(model, ("vision", "projector"), "test")
    inner = model
    if adapters:
        model = with_adapters(model)
    else:
        with torch.no_grad():
            model.lm_head.weight.mul_(2.0)
    if torch.distributed.get_rank() == 0:
        whole = copy.deepcopy(model)
        torch.save((whole.merge_and_unload() if adapters else whole).state_dict(), folder / "expected.pt")
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",))
    for layer in [*inner.model.visual.blocks, *inner.model.language_model.layers]:
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
    main(Path(sys.argv[1]), "adapters" in sys.argv[2:])
