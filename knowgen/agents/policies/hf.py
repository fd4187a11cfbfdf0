"""The policy `hf:MODEL`: a model of the Qwen-VL family in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.agents.tokens import TokenSession
from knowgen.core.errors import UsageError
from knowgen.core.home import expand_user
from knowgen.local_models.vlm import DTYPES, LocalVlm, ModelSource, load
from knowgen.local_models.vlm_weights import weights_id


class HfPolicy:
    """A vision-language model of the Qwen-VL family that runs in this process with transformers.

    Trajectories that wait for a reply share a batch. Its sessions keep their token ids.

    Args:
        model: Folder with config.json, processor and *.safetensors, or name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one.
        download: Whether the weights may be downloaded from the hub; otherwise they must be in its cache.
        device: Device such as `cuda:0` or `cpu`; empty for the first GPU, or the CPU without one.
        dtype: Number format of the weights: auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16 or float16.
        device_map: Placement over several devices as in transformers, such as `auto`; empty for one device.
        batch_size: Maximum number of trajectories in a batch; halved when memory runs out.

    Raises:
        UsageError: An argument is invalid.
    """

    local: ClassVar[bool] = True
    identity_excludes: ClassVar[frozenset[str]] = frozenset({"download", "device", "device_map", "batch_size"})

    def __init__(
        self,
        model: str,
        revision: str = "",
        download: bool = False,
        device: str = "",
        dtype: str = "auto",
        device_map: str = "",
        batch_size: int = 8,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError("the policy needs a model", where="policy hf", fix="name it as hf:FOLDER or hf:ORG/NAME")
        where = f"policy hf:{model}"
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size must be a whole number >= 1, got {batch_size!r}", where=where)
        if dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}", where=where)
        self.source = ModelSource(model, revision, download, dtype, device_map, where, option="-g policy.")
        self._device = device
        self.engine = HfEngine(self._load, batch_size=batch_size, where=where)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model by the content of its folder, or by its name and revision on the hub, and number format."""
        folder = expand_user(self.source.model)
        named = {"model": self.source.model, "revision": self.source.revision}
        content = {"weights": weights_id(folder)} if any(folder.glob("*.safetensors")) else named
        return {"policy": "hf", **content, "dtype": self.source.dtype}

    def open(self, sampling: Sampling, prompt: str, session: str) -> TokenSession:
        """Return a new session; the model is loaded for its first reply."""
        return TokenSession(self.engine, sampling, session)

    async def close(self) -> None:
        """Free the model and its memory."""
        await self.engine.close()

    def _load(self) -> LocalVlm:
        import torch

        device = self._device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        return load(self.source, device)
