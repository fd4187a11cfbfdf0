"""Estimates of memory and time of a training, from the sizes of its model and the published figures of a GPU.

They say whether a plan can fit and how its parts compare; what a machine really does, a short run shows. What is
assumed is in `ASSUMPTIONS` and in the arguments.

Memory of one GPU in bytes, with P trained and F frozen parameters, N GPUs that share the weights, a batch of T tokens:

    weights       4 P / N + 2 F / N      trained ones in float32, frozen ones in bfloat16
    working copy  2 P / N                trained ones in bfloat16, with which is computed
    gradients     4 P / N
    optimizer     8 P / N                both moments of AdamW in float32
    layers        2 T h L                the inputs of all layers, where activations are computed again
                  + 2 T (4 h + 2 q + 2 k + 4 i)      all activations of one layer
    loss          10 C v                 logits of C tokens at a time, with their gradient

with hidden size h, L layers, sizes q of all queries and k of all keys, inner size i, and v tokens. Without computing
again, the activations of every layer count. 16 bytes for each trained parameter besides the working copy: ZeRO,
arXiv 1910.02054, section 3. Activations by layer: arXiv 2205.05198, section 4, with the gate of the feed-forward block
counted, with fewer heads of keys, and without the matrix of attention, which fused attention does not store.

Time: 6 floating-point operations for each parameter and token, forward and backward (arXiv 2001.08361, section 2.1), 8
where activations are computed again; weights that are frozen need no gradient of their own. Attention adds 12 T q L for
each token, half of it by the causal mask (arXiv 2204.02311, appendix B). Sampling reads all weights and the cache of
keys and values once for each token of a batch: it is limited by the memory's bandwidth (arXiv 2211.05102, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.text import count
from knowgen.training.config import TrainingConfig
from knowgen.training.gpus import GIB, Gpu
from knowgen.training.model_sizes import ModelSizes

UTILISATION = 0.35
"""Share of the peak rate that a training reaches; published ones reach 0.3 to 0.5."""
BANDWIDTH_SHARE = 0.6
"""Share of the peak bandwidth that sampling reaches."""
RESERVED = 0.08
"""Share of a GPU's memory for the CUDA context, communication and fragments."""
LOSS_TOKENS = 256
"""Number of tokens whose logits TRL has in memory at once."""
SAMPLED = 0.15
"""Share of a trajectory's tokens that the policy samples; the others are prompts, tool results and images."""
FULLNESS = 0.5
"""Mean length of a trajectory as a share of the longest one that is allowed."""

ASSUMPTIONS = (
    f"the GPUs reach {UTILISATION:.0%} of their peak rate and {BANDWIDTH_SHARE:.0%} of their peak bandwidth",
    f"{RESERVED:.0%} of the memory is taken by the CUDA context, communication and fragments",
    "several GPUs share the weights that are trained (FSDP2 or ZeRO-3) and are in one machine or well connected",
    "attention is fused, and logits are computed for a few tokens at a time",
)
SAMPLING_ASSUMPTIONS = (
    f"a trajectory has {FULLNESS:.0%} of the tokens that it may have, of which {SAMPLED:.0%} are sampled",
    "waiting for search, image model and judges is not counted: it overlaps with sampling, and can be longer",
)


@dataclass(frozen=True)
class Part:
    """A part of an estimate: its name and its value in bytes or seconds."""

    name: str
    value: float


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one GPU.

    Attributes:
        parts: Its parts in bytes.
        available: Memory of the GPU without what is reserved, in bytes.
    """

    parts: tuple[Part, ...]
    available: float

    @property
    def total(self) -> float:
        """Sum of the parts in bytes."""
        return sum(part.value for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.total <= self.available


def trained_and_frozen(sizes: ModelSizes, config: TrainingConfig) -> tuple[int, int]:
    """Return the numbers of trained and of frozen parameters."""
    model = config.model
    if model.lora is not None:
        return sizes.adapter_parameters(model.lora.rank, model.lora.targets), sizes.parameters
    frozen = 0
    if any(part in ("vision", "visual", "vision_tower") for part in model.freeze):
        frozen += sizes.vision.parameters
    # the parts of names `visual` and `vision_tower` contain the projector too
    if any(part in ("projector", "merger", "multi_modal_projector", "visual", "vision_tower") for part in model.freeze):
        frozen += sizes.vision.projector_parameters
    return sizes.parameters - frozen, frozen


def layer_activations(sizes: ModelSizes) -> int:
    """Return the bytes of all activations of one layer for each token."""
    queries, keys = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    return 2 * (4 * sizes.hidden + 2 * queries + 2 * keys + 4 * sizes.inner)


def cache_per_token(sizes: ModelSizes) -> int:
    """Return the bytes of keys and values of one token, in bfloat16.

    Example:
        >>> from knowgen.training.model_sizes import QWEN3_VL_8B
        >>> cache_per_token(QWEN3_VL_8B)
        147456
    """
    return 2 * 2 * sizes.layers * sizes.kv_heads * sizes.head


def training_memory(
    sizes: ModelSizes, config: TrainingConfig, gpu: Gpu, gpus: int, tokens: int, rows: int = 1
) -> MemoryEstimate:
    """Return the memory of one GPU in the step of the optimizer.

    Args:
        sizes: Sizes of the model.
        config: What of it is trained, and whether activations are computed again.
        gpu: The GPU.
        gpus: Number of GPUs that share the weights.
        tokens: Tokens of the longest sequence.
        rows: Sequences of one GPU in one forward pass.
    """
    trained, frozen = trained_and_frozen(sizes, config)
    number = 2 if config.model.dtype != "float32" else 4
    batch, layer = tokens * rows, layer_activations(sizes)
    if config.model.gradient_checkpointing:
        layers = batch * (2 * sizes.hidden * sizes.layers + layer)
    else:
        layers = batch * layer * sizes.layers
    gathered = number * (sizes.layer_parameters * 2 + sizes.embedding_parameters) if gpus > 1 else 0
    return MemoryEstimate(
        (
            Part("weights", (4 * trained + number * frozen) / gpus),
            Part("working copy of trained weights", (number * trained / gpus) if number == 2 else 0.0),
            Part("gradients", 4 * trained / gpus),
            Part("optimizer states", 8 * trained / gpus),
            Part("layers gathered from other GPUs", float(gathered)),
            Part("activations" + (", computed again" if config.model.gradient_checkpointing else ""), float(layers)),
            Part("logits", 10.0 * min(batch, LOSS_TOKENS) * sizes.vocabulary),
        ),
        gpu.memory * (1 - RESERVED),
    )


def sampling_memory(sizes: ModelSizes, gpu: Gpu, tokens: int, trajectories: int) -> tuple[MemoryEstimate, int]:
    """Return the memory of one GPU that only samples, and the number of trajectories that it holds at once.

    A server keeps those waiting for which it has no room; at least one must fit.

    Args:
        sizes: Sizes of the model.
        gpu: The GPU, which has all weights.
        tokens: Tokens of a trajectory.
        trajectories: Number of trajectories of the GPU.
    """
    available, weights = gpu.memory * (1 - RESERVED), 2.0 * sizes.parameters
    each = cache_per_token(sizes) * tokens
    held = max(1, min(trajectories, int((available - weights) // each)))
    parts = (
        Part("weights", weights),
        Part(f"keys and values of {count(held, 'trajectory', 'trajectories')}", float(each * held)),
    )
    return MemoryEstimate(parts, available), held


def training_seconds(sizes: ModelSizes, config: TrainingConfig, gpu: Gpu, gpus: int, lengths: Sequence[int]) -> float:
    """Return the time of one forward and backward pass over sequences, without rollouts.

    Args:
        sizes: Sizes of the model.
        config: What of it is trained, and whether activations are computed again.
        gpu: The GPU.
        gpus: Number of GPUs.
        lengths: Tokens of each sequence.
    """
    trained, _ = trained_and_frozen(sizes, config)
    again = 2 if config.model.gradient_checkpointing else 0
    used = sizes.language_parameters
    through = 4 + again  # forward, and the gradient of the inputs, which passes frozen weights too
    total = 0.0
    for tokens in lengths:
        attention = 6 * tokens * sizes.heads * sizes.head * sizes.layers * (through + 2) / 6
        total += tokens * (through * used + 2 * min(trained, used) + attention)
    return total / (gpu.flops * UTILISATION * gpus)


def sampling_seconds(
    sizes: ModelSizes, gpu: Gpu, gpus: int, *, tokens: int, sampled: int, trajectories: int, at_once: int
) -> float:
    """Return the time to sample trajectories, without tools.

    Args:
        sizes: Sizes of the model.
        gpu: The GPU.
        gpus: Number of GPUs of the server.
        tokens: Tokens of a trajectory.
        sampled: Tokens of a trajectory that are sampled.
        trajectories: Number of trajectories.
        at_once: Maximum number at once.
    """
    together = max(1, -(-min(at_once, trajectories) // gpus))
    rounds = -(-trajectories // (together * gpus))
    # half of the tokens are in the cache on average
    read = 2 * sizes.parameters + together * cache_per_token(sizes) * tokens / 2
    decode = sampled * read / (gpu.bandwidth * BANDWIDTH_SHARE)
    prefill = together * (tokens - sampled) * 2 * sizes.language_parameters / (gpu.flops * UTILISATION)
    return rounds * (decode + prefill)


def memory_text(value: float) -> str:
    """Return bytes in GiB, or in MiB where they are few.

    Example:
        >>> memory_text(80e9), memory_text(3e6)
        ('74.5 GiB', '2.9 MiB')
    """
    return f"{value / GIB:.1f} GiB" if value >= GIB / 10 else f"{value / 2**20:.1f} MiB"


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training needs.

    Attributes:
        memory: Memory of one GPU for each role, such as training and sampling.
        step: Parts of the time of a step in seconds.
        steps: Number of steps; 0 when unknown.
        assumptions: What is assumed.
    """

    memory: tuple[tuple[str, MemoryEstimate], ...]
    step: tuple[Part, ...]
    steps: int
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time of all steps in seconds."""
        return self.steps * sum(part.value for part in self.step)


def estimate_sft(
    sizes: ModelSizes, config: TrainingConfig, gpu: Gpu, gpus: int, *, conversations: int, lengths: Sequence[int]
) -> TrainingEstimate:
    """Return what a fine-tuning needs.

    Args:
        sizes: Sizes of the model.
        config: The configuration.
        gpu: The GPU.
        gpus: Number of GPUs.
        conversations: Number of conversations; 0 when unknown.
        lengths: Tokens of conversations, of which the mean counts.
    """
    assert config.sft is not None
    sft = config.sft
    batch = sft.batch_size * sft.accumulation * gpus
    steps = sft.max_steps or (max(1, int(conversations * sft.epochs / batch)) if conversations else 0)
    memory = training_memory(sizes, config, gpu, gpus, min(sft.max_tokens, max(lengths)), sft.batch_size)
    mean = sum(training_seconds(sizes, config, gpu, gpus, [length]) for length in lengths) / len(lengths)
    return TrainingEstimate((("training", memory),), (Part("training", mean * batch),), steps, ASSUMPTIONS)


def estimate_grpo(sizes: ModelSizes, config: TrainingConfig, gpu: Gpu, gpus: int, *, steps: int) -> TrainingEstimate:
    """Return what a training with GRPO needs.

    With the engine `vllm`, a quarter of the GPUs (at least one) belongs to the server; with one GPU alone the server is
    elsewhere. With `local` each GPU trains and samples.
    """
    assert config.grpo is not None
    grpo, rollout = config.grpo, config.grpo.rollout
    longest = rollout.max_prompt_tokens + rollout.max_completion_tokens
    size = rollout.prompts * rollout.group
    server = max(1, gpus // 4) if rollout.engine == "vllm" and gpus > 1 else 0
    training = gpus - server
    tokens, sampled = int(longest * FULLNESS), int(longest * FULLNESS * SAMPLED)
    at_once = min(rollout.concurrency, size)
    memory = [("training", training_memory(sizes, config, gpu, training, longest, grpo.micro_batch))]
    notes: tuple[str, ...] = ()
    if rollout.engine == "vllm":
        notes = ("the vLLM server has another GPU of the same kind",)
        if server:
            notes = (f"{server} of the GPUs sample in the server of grpo.rollout.url, {training} train",)
        sampling, held = sampling_memory(sizes, gpu, tokens, -(-at_once // max(1, server)))
        memory.append(("sampling", sampling))
        samplers = max(1, server)
    else:
        samplers, held = gpus, min(rollout.batch_size, -(-at_once // gpus))
        cache = Part(
            f"keys and values of {count(held, 'trajectory', 'trajectories')}",
            float(cache_per_token(sizes) * tokens * held),
        )
        memory.append(("sampling", MemoryEstimate((*memory[0][1].parts[:4], cache), memory[0][1].available)))
    seconds = sampling_seconds(
        sizes, gpu, samplers, tokens=tokens, sampled=sampled, trajectories=size, at_once=held * samplers
    )
    trained = training_seconds(sizes, config, gpu, training, [tokens] * size)
    step = (Part("sampling", seconds / grpo.iterations), Part("training", trained))
    if grpo.iterations > 1:
        notes = (*notes, f"{grpo.iterations} steps on the same trajectories, which share the time of sampling")
    return TrainingEstimate(tuple(memory), step, steps, (*notes, *ASSUMPTIONS, *SAMPLING_ASSUMPTIONS))
