"""The configuration of a training: one YAML file, with values that the command line may replace.

    config = load_config("grpo/recommended", ["model.path=checkpoints/sft", "optimizer.learning_rate=2e-6"])

A file may name another one in `extends`, whose values it replaces: a bundled one such as `grpo/recommended`, or a path
relative to itself. Every field is declared here once, with its meaning; an unknown key is an error that names the
nearest known one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.secrets import refuse_secrets
from knowgen.core.yaml_files import read_yaml
from knowgen.training.config_words import value_problem

CONFIGS = Path(__file__).parent / "configs"
"""Folder of the bundled configurations."""
ACCELERATE = CONFIGS / "accelerate"
"""Folder of the bundled configurations of `accelerate launch`, for one GPU, eight, and several machines."""

VISION_MODULES = ("visual", "vision_tower")
"""Parts of module names that belong to the vision tower."""
PROJECTOR_MODULES = ("merger", "multi_modal_projector")
"""Parts of module names that belong to the projector from the vision tower to the language model."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections: immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LoraConfig(Section):
    """Low-rank adapters in place of the full weights."""

    rank: Count = 32
    """Rank of the adapters."""
    alpha: Count = 64
    """Scale of the adapters; the update is multiplied by alpha / rank."""
    dropout: Share = 0.0
    """Dropout of the adapters' inputs."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers of the language model that get an adapter."""


class ModelConfig(Section):
    """The policy's model."""

    path: str = ""
    """Folder, name on the Hugging Face hub, or `mini:SEED` for the small model with random weights."""
    revision: str = ""
    """Branch, tag or commit on the hub."""
    download: bool = False
    """Whether the weights may be downloaded from the hub."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of training: bfloat16 on a GPU and float32 on a CPU when auto."""
    attention: str = ""
    """Attention implementation of transformers, such as sdpa or flash_attention_2; its default when empty."""
    freeze: tuple[str, ...] = ("vision", "projector")
    """Parts of parameter names that are not trained; a part that matches no parameter is an error. `vision` and
    `projector` stand for the vision tower and for the projector from it to the language model, of any family."""
    lora: LoraConfig | None = None
    """Low-rank adapters; all weights that are not frozen are trained without."""
    gradient_checkpointing: bool = True
    """Whether activations are computed again in the backward pass, which saves memory."""


class OptimizerConfig(Section):
    """The optimizer, AdamW."""

    learning_rate: Positive = 1e-6
    """Highest learning rate."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How it changes over the training, after the warm-up."""
    warmup_ratio: Share = 0.0
    """Share of the steps in which it rises from 0."""
    weight_decay: NotNegative = 0.01
    """Weight decay."""
    max_grad_norm: Positive = 1.0
    """Norm to which the gradient is clipped."""


class ConversationSource(Section):
    """Conversations for fine-tuning."""

    path: str
    """`gen_searcher_sft` for the prepared set of the hub, or a file that `knowgen trajectories make` wrote."""
    limit: Count | None = None
    """Number of conversations that are used; all when null."""


class SftSection(Section):
    """Fine-tuning on conversations."""

    conversations: tuple[ConversationSource, ...] = ()
    """Where the conversations come from."""
    epochs: Positive = 2.0
    """Passes over the conversations, where `max_steps` is null."""
    max_steps: Count | None = None
    """Number of optimizer steps."""
    batch_size: Count = 1
    """Conversations of one device in one forward pass."""
    accumulation: Count = 1
    """Forward passes of one device for one optimizer step."""
    max_tokens: Count = 32768
    """Maximum number of tokens of a conversation, images included; a longer one is cut at the end of a turn."""
    image_pixels: Annotated[int, Field(ge=0)] = 160_000
    """Maximum width times height of an image; 0 for images as they are."""
    empty_think: bool = False
    """Whether a reply without a think block gets an empty one, as in the published training."""


class PromptSource(Section):
    """A task whose prompts are used for training."""

    task: str
    """Name of a task or its folder, such as `rl_items` for the prepared set of the hub, or `things:0`."""
    fresh_seed: bool = False
    """Whether each epoch has a task of its own: the seed at the end of the task's name is counted up."""
    limit: Count | None = None
    """Number of prompts that are used; all when null."""


class RewardConfig(Section):
    """The dual reward: `(1 - text_weight) * image + text_weight * text`."""

    text_weight: Share = 0.5
    """Weight of the text half. A half whose weight is 0 is not computed."""
    image: str = ""
    """Scorer of the image, such as `vlm:MODEL`; the first default scorer of the task when empty."""
    image_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the scorer of the image."""
    text: str = ""
    """Scorer of the answer, such as `answer:MODEL`, or `world_answer` for worlds."""
    text_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the scorer of the answer."""
    least_references: Annotated[int, Field(ge=0)] = 1
    """Least number of reference images of an answer; one with fewer gets reward 0 without an image."""
    most_references: Count = 4
    """Greatest number of reference images of an answer."""
    reading: Literal["strict", "lenient"] = "strict"
    """How replies of judges are read; the published training reads them leniently."""
    constant: Share | None = None
    """Reward of every episode, for control experiments; null for the reward proper."""


class PainterConfig(Section):
    """The image model that generates from the agent's answers."""

    name: str = ""
    """Name of the generator, such as `http:http://host:8001`; it is not used where the image half has no weight."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the generator."""
    urls: tuple[str, ...] = ()
    """Addresses of several servers of the same generator, used in turn; `name` must be `http`."""
    concurrency: Count = 8
    """Maximum number of images that are generated at once, over all servers."""
    timeout: Positive = 600.0
    """Maximum time of one image, in seconds; after that the episode is masked."""


class ServicesConfig(Section):
    """Limits on what the training calls."""

    judge_concurrency: Count = 16
    """Maximum number of calls of each judge at once."""
    tries: Count = 4
    """Maximum number of attempts at a call of a judge or the image model that meets transient errors."""
    patience: Positive = 1800.0
    """Time without any answer of a service, in seconds, after which the training stops; it can be resumed."""
    budget: NotNegative | None = None
    """Maximum cost in US dollars over the whole training; null for none."""


class RolloutConfig(Section):
    """How trajectories are sampled."""

    prompts: Count = 8
    """Prompts of one optimizer step."""
    group: Annotated[int, Field(ge=2)] = 6
    """Trajectories per prompt, whose rewards are compared."""
    engine: Literal["local", "vllm"] = "local"
    """What samples: the trained model in this process, or a vLLM server that receives its weights."""
    url: str = ""
    """Address of the vLLM server."""
    batch_size: Count = 64
    """Maximum number of trajectories in a batch of the local engine."""
    temperature: Positive = 0.7
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Share of probability that is sampled from."""
    max_prompt_tokens: Count = 4096
    """Maximum number of tokens of system prompt and prompt."""
    max_completion_tokens: Count = 30_000
    """Maximum number of tokens of everything after the prompt: replies, tool results and images."""
    max_new_tokens: Count = 4096
    """Maximum number of tokens of one reply."""
    concurrency: Count = 128
    """Maximum number of trajectories at once."""


class GrpoSection(Section):
    """Group-relative policy optimization."""

    prompts: tuple[PromptSource, ...] = ()
    """Where the prompts come from."""
    curriculum: Literal["none", "difficulty"] = "none"
    """Order of the prompts in an epoch: shuffled, or easy ones first and shuffled among equals."""
    epochs: Positive = 5.0
    """Passes over the prompts, where `max_steps` is null."""
    max_steps: Count | None = None
    """Number of optimizer steps."""
    micro_batch: Count = 1
    """Trajectories of one device in one forward pass of the gradient."""
    iterations: Count = 1
    """Optimizer steps on the same trajectories."""
    clip_low: Share = 0.2
    """The ratio of probabilities is clipped at 1 - clip_low."""
    clip_high: Annotated[float, Field(ge=0.0)] = 0.28
    """The ratio of probabilities is clipped at 1 + clip_high."""
    kl: NotNegative = 0.0
    """Weight of the divergence from the first model; 0 for none. With adapters that is the model without them."""
    old_logprobs: Literal["engine", "trainer", "corrected"] = "engine"
    """Log-probabilities of the sampled tokens that the ratio compares with: those of the engine that sampled them, or
    those that the trainer computes before the first step on them. With `corrected` they are the trainer's, and each
    token is weighted by its probability by the trainer over that by the engine, at most 2 (a vLLM server only)."""
    images_in_gradient: bool = True
    """Whether the trainer sees the images. With `false` it sees grey in their place, for control experiments: so the
    released training works. Use `old_logprobs: trainer` with it."""
    scale_rewards: bool = True
    """Whether the advantages of a group are divided by the standard deviation of its rewards."""
    skip_equal_groups: bool = False
    """Whether groups whose rewards are all equal are left out of the batch, and other prompts take their places."""
    masked_endings: tuple[str, ...] = ()
    """Endings whose trajectories are left out of the gradient; the published training leaves out all but `answer`."""
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    painter: PainterConfig = PainterConfig()
    services: ServicesConfig = ServicesConfig()

    @field_validator("masked_endings")
    @classmethod
    def _known_endings(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        from knowgen.agents.records import Ending

        known = [each.value for each in Ending]
        if unknown := [name for name in endings if name not in known]:
            raise ValueError(f"no ending {unknown[0]!r}; name one of {', '.join(known)}")
        return endings


class EvaluationConfig(Section):
    """Evaluation of checkpoints on a task, by a run like any other."""

    task: str = ""
    """Name or folder of the task; no evaluation when empty."""
    every: Count = 20
    """Steps between two evaluations; the first is before the first step."""
    limit: Count | None = None
    """Number of samples; all when null."""
    scorers: tuple[str, ...] = ()
    """Scorers; those of the task when empty."""
    search: str = ""
    """Search backend; that of the training when empty."""
    painter: str = ""
    """Image model; that of the training when empty."""
    keep: Literal["best", "last"] = "best"
    """Checkpoint that becomes the result: the one with the highest headline, or the last."""


class CheckpointConfig(Section):
    """Checkpoints of a training."""

    every: Count = 20
    """Steps between two checkpoints."""
    keep: Count = 3
    """Number of checkpoints that are kept, besides the best one."""


class VerlSection(Section):
    """What the backend `verl` needs beside the rest: the cluster, and how the model is spread over its GPUs."""

    nodes: Count = 1
    """Number of machines."""
    gpus_per_node: Count = 8
    """GPUs of each machine; all of them sample and train in turn."""
    ray: str = ""
    """Address of a running Ray cluster, such as `auto`; a cluster of this machine alone is started when empty."""
    strategy: Literal["fsdp", "fsdp2"] = "fsdp2"
    """How weights, gradients and optimizer are sharded."""
    shard_size: Count | None = None
    """GPUs over which the weights are sharded, with a copy in each such group; all GPUs when null."""
    sequence_parallel: Count = 1
    """GPUs that share one trajectory in the gradient."""
    offload: bool = False
    """Whether weights and optimizer are kept in main memory while trajectories are sampled."""
    tokens_per_gpu: Count | None = None
    """Tokens of one forward pass of a GPU, at least those of the longest trajectory; `grpo.micro_batch` when null."""
    tensor_parallel: Count = 1
    """GPUs of one vLLM engine."""
    gpu_memory: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.6
    """Share of a GPU's memory that vLLM takes while it samples."""
    workers: Count = 8
    """Processes that run agents; each has an equal part of the limits on services and of the budget."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further settings of verl by their full names, such as `trainer.v1.trainer_mode`; they replace all others."""


class TrainingConfig(Section):
    """A training.

    Example:
        >>> config = TrainingConfig(method="sft", model=ModelConfig(path="mini:0"))
        >>> config.optimizer.max_grad_norm
        1.0
    """

    method: Literal["sft", "grpo"]
    """What is done: fine-tuning on conversations, or GRPO."""
    backend: str = "trl"
    """What trains: `trl`, `verl`, or `module:Class`."""
    seed: int = 0
    """Seed of everything that is drawn at random."""
    model: ModelConfig
    agent: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the generator `gen_searcher`, as after `-g`: search, prompt, tools, rounds, summary."""
    optimizer: OptimizerConfig = OptimizerConfig()
    sft: SftSection | None = None
    grpo: GrpoSection | None = None
    verl: VerlSection = VerlSection()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    keep_episodes: bool = True
    """Whether the trajectories of each step are stored, for the report."""

    @field_validator("agent")
    @classmethod
    def _no_parts_of_the_training(cls, agent: dict[str, Any]) -> dict[str, Any]:
        taken = ("policy", "painter", "temperature", "top_p", "max_new_tokens", "max_context")
        if named := [name for name in taken if name in agent]:
            raise ValueError(f"{named[0]} is set by the training, not under agent")
        return agent

    @model_validator(mode="after")
    def _method_has_its_section(self) -> TrainingConfig:
        if getattr(self, self.method) is None:
            object.__setattr__(self, self.method, SftSection() if self.method == "sft" else GrpoSection())
        return self


def grpo_of(config: TrainingConfig) -> GrpoSection:
    """Return the section on GRPO.

    Raises:
        ConfigError: The method is another one.
    """
    if config.grpo is None:
        raise ConfigError(f"the method is {config.method}", where="training", fix="set method: grpo")
    return config.grpo


def load_config(name: str | Path, overrides: list[str] | None = None) -> TrainingConfig:
    """Return the configuration of a file.

    Args:
        name: Path of a YAML file, or the name of a bundled one such as `sft/paper`.
        overrides: Replaced values as `section.key=VALUE`, each value in YAML.

    Raises:
        UsageError: The file does not exist, or an override is not of that form.
        ConfigError: A file is not YAML, a key is unknown, or a value is out of its range.
    """
    data = _read(name, ())
    for override in overrides or []:
        _replace(data, override)
    refuse_secrets(data)
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explained(error), where=str(name)) from error


def option_rows() -> list[tuple[str, str, str]]:
    """Return key, default and meaning of every option, for the documentation.

    Options of an entry of a list have `[]` in their key. The default is in JSON; empty for one that must be given.
    """
    return list(_rows_of(TrainingConfig, ""))


def _rows_of(section: type[Section], before: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        inner = _inner_section(field.annotation)
        meaning = " ".join((field.description or "").split())
        if inner is None:
            yield f"{before}{name}", "" if field.is_required() else _default_text(field), meaning
            continue
        many = get_origin(field.annotation) is tuple
        if many or name == "lora":
            yield f"{before}{name}", _default_text(field), meaning
        yield from _rows_of(inner, f"{before}{name}{'[]' if many else ''}.")


def _inner_section(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds, or that the entries of its list are."""
    kinds = [annotation, *get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _default_text(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False)


def bundled_configs() -> list[str]:
    """Return the names of the bundled configurations, such as `grpo/paper`."""
    paths = (path for path in CONFIGS.rglob("*.yaml") if path.parent != ACCELERATE)
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in paths)


def _path_of(name: str | Path, beside: Path | None) -> Path:
    """Return the file of a name; one that is relative in a file is beside it, or bundled."""
    path = expand_user(str(name))
    candidates = [beside / path] if beside is not None and not path.is_absolute() else [path]
    bundled = CONFIGS / f"{name}.yaml"
    for candidate in (*candidates, bundled):
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"no configuration {str(name)!r}",
        where="--config",
        fix=f"name a YAML file, or one of {', '.join(bundled_configs())}",
    )


def _read(name: str | Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a file and of those that it extends."""
    path = _path_of(name, chain[-1].parent if chain else None).resolve()
    if path in chain:
        raise ConfigError("extends itself", where=str(path), fix="remove the line with extends")
    data = read_yaml(path).data
    if not isinstance(data, dict):
        raise ConfigError("must be a mapping of keys to values", where=str(path))
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise ConfigError("extends must be one name", where=str(path))
    return _merged(_read(parent, (*chain, path)), data)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping with the values of another in its place; mappings are merged, lists replaced."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _replace(data: dict[str, Any], override: str) -> None:
    """Set the value of an override in place."""
    import yaml

    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"{override!r} is not of the form key=value", fix="write it as optimizer.learning_rate=1e-6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the value of {name} is not YAML: {text!r}", fix="quote it") from error
    inner = data
    for key in keys[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[keys[-1]] = value


def _explained(error: ValidationError) -> str:
    """Return the first problem in one line, with the nearest known key for an unknown one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        what = value_problem(first)
        return f"{place}: {what}" if place else what
    section: Any = TrainingConfig
    for part in first["loc"][:-1]:
        section = _section_of(section, part)
    near = get_close_matches(str(first["loc"][-1]), getattr(section, "model_fields", {}), n=1)
    return f"unknown key {place}" + (f"; did you mean {near[0]}?" if near else "")


def _section_of(section: Any, part: int | str) -> Any:
    """Return the section of a field, or of the entries of its list."""
    field = getattr(section, "model_fields", {}).get(part)
    if field is None:
        return section
    return _inner_section(field.annotation)
