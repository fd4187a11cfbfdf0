"""Check a training before it begins: everything but the training itself.

Each part is a section with lines for the reader and problems, which say what, where and how to fix it. Sections are
yielded as they are done, because a model that is loaded and services that are called take time.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from knowgen.agents.policies.contract import Finish, Policy, PolicyReply, PolicySession, Sampling
from knowgen.agents.protocol import written_answer, written_call
from knowgen.agents.records import Message, Segment
from knowgen.agents.rendering import Renderer
from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.text import count, duration_text
from knowgen.core.text_files import parse_strict_json
from knowgen.training.config import SftSection, TrainingConfig
from knowgen.training.estimate import TrainingEstimate, estimate_grpo, estimate_sft, memory_text
from knowgen.training.gpus import Gpu
from knowgen.training.model_sizes import QWEN3_VL_8B, ModelSizes
from knowgen.workflows.report_training import changed_values

if TYPE_CHECKING:
    from knowgen.training.backends.contract import Episode
    from knowgen.training.conversations import SftConversation
    from knowgen.training.rollouts import AgentRollouts
    from knowgen.workflows.training_plan import TrainingPlan

MOST_ENCODED = 500
"""Maximum number of conversations or prompts that are encoded, evenly spaced."""

PATIENCE = 60.0
"""Maximum time that the check waits for a service, in seconds."""

KNOWN_SIZES = {"Qwen/Qwen3-VL-8B-Instruct": QWEN3_VL_8B, "GenSearcher/Gen-Searcher-8B": QWEN3_VL_8B}
"""Sizes of published models, for estimates on a machine that does not have them."""

_PIECE = 240
"""Maximum number of characters that are shown of a piece of context at each of its ends."""


@dataclass(frozen=True)
class MaskedText:
    """A conversation as the gradient sees it: pieces of text, each with whether it is trained."""

    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class TrainingCheckSection:
    """A part of the check.

    Attributes:
        title: What was checked.
        lines: What was found.
        problems: What is wrong.
        masks: A conversation with its masks; None without one.
    """

    title: str
    lines: tuple[str, ...] = ()
    problems: tuple[KnowgenError, ...] = ()
    masks: MaskedText | None = None


def check_training(
    config: TrainingConfig, name: str, gpus: Sequence[tuple[Gpu, int]] = (), *, rollout: bool = True
) -> Iterator[TrainingCheckSection]:
    """Yield the sections of a check.

    Args:
        config: The configuration.
        name: Its name, for messages.
        gpus: GPUs to estimate memory and time for, each with their number.
        rollout: Whether one rollout is run, which loads the model unless a server has it.
    """
    changed = changed_values(config)
    yield TrainingCheckSection(
        "configuration", tuple(f"{key} = {here}   (default {usual})" for key, here, usual in changed)
    )
    check = (_Sft if config.method == "sft" else _Grpo)(config, name)
    try:
        yield from check.sections(rollout)
    except KnowgenError as error:
        yield TrainingCheckSection("cannot go on", problems=(error,))
    for gpu, number in gpus:
        yield _estimate_section(check, gpu, number)


class _Sft:
    """The check of a fine-tuning. What it has found, its estimates use; without that they assume the longest."""

    def __init__(self, config: TrainingConfig, name: str) -> None:
        self.config, self._name = config, name
        self.section = config.sft or SftSection()
        self._lengths: list[int] = []
        self._conversations = 0

    def estimate(self, sizes: ModelSizes, gpu: Gpu, number: int) -> TrainingEstimate:
        lengths = self._lengths or [self.section.max_tokens]
        return estimate_sft(sizes, self.config, gpu, number, conversations=self._conversations, lengths=lengths)

    def sections(self, rollout: bool) -> Iterator[TrainingCheckSection]:
        from knowgen.training.conversations import Conversations
        from knowgen.training.sft.trainer import encoder_of, require_training_packages

        section = self.section
        require_training_packages(self._name)
        conversations = Conversations(section.conversations)
        self._conversations = len(conversations)
        processor = model_processor(self.config, self._name)
        renderer = Renderer(processor.tokenizer, self._name)
        renderer.check_template(self._name)
        encoder = encoder_of(section, renderer, processor)
        whole = encoder_of(section.model_copy(update={"max_tokens": 2**31}), renderer, processor)
        self._lengths, data, masks = _encoded(
            conversations, encoder, whole, section.max_tokens, processor.tokenizer, renderer.image
        )
        yield data
        yield TrainingCheckSection("masks", masks=masks)


def _encoded(
    conversations: Sequence[SftConversation], encoder: Any, whole: Any, max_tokens: int, tokenizer: Any, image: int
) -> tuple[list[int], TrainingCheckSection, MaskedText | None]:
    """Encode conversations; return their lengths, what is to be said of them, and the masks of the first."""
    chosen = _spaced(len(conversations))
    lengths: list[int] = []
    shares: list[float] = []
    images: list[int] = []
    problems: list[KnowgenError] = []
    masks: MaskedText | None = None
    cut = 0
    for number in chosen:
        try:
            encoded = encoder.encode(conversations[number])
        except KnowgenError as error:
            problems.append(error)
            continue
        lengths.append(len(whole.encode(conversations[number]).ids) if encoded.cut else len(encoded.ids))
        cut += encoded.cut
        images.append(len(conversations[number].images))
        trained = [label >= 0 for label in encoded.labels]
        shares.append(sum(trained) / len(trained))
        masks = masks or masked_text(tokenizer, image, [(encoded.ids, trained)])
    lines = [f"{count(len(conversations), 'conversation')}, {len(chosen)} of them encoded"]
    if lengths:
        lines += [
            f"tokens: {_spread(lengths)}",
            f"trained: {sum(shares) / len(shares):.1%} of the tokens",
            f"images in a conversation: {_spread(images)}",
            f"cut at {max_tokens:,} tokens: {cut}",
        ]
    return lengths, TrainingCheckSection("data", tuple(lines), tuple(problems[:5])), masks


class _Grpo:
    """The check of a training with GRPO."""

    def __init__(self, config: TrainingConfig, name: str) -> None:
        assert config.grpo is not None
        services = config.grpo.services
        impatient = services.model_copy(update={"patience": min(services.patience, PATIENCE)})
        self._grpo = config.grpo.model_copy(update={"services": impatient})
        self.config = self._config = config.model_copy(update={"grpo": self._grpo})
        self._name, self._steps = name, self._grpo.max_steps or 0

    def estimate(self, sizes: ModelSizes, gpu: Gpu, number: int) -> TrainingEstimate:
        return estimate_grpo(sizes, self.config, gpu, number, steps=self._steps)

    def sections(self, rollout: bool) -> Iterator[TrainingCheckSection]:
        from knowgen.workflows.training_plan import plan_training

        plan = plan_training(self._config, self._name)
        self._steps = plan.steps
        processor = model_processor(self._config, self._name)
        yield self._data(plan, processor)
        with tempfile.TemporaryDirectory(prefix="knowgen-check-") as folder:
            yield from self._live(plan, Path(folder), processor, rollout=rollout)

    def _data(self, plan: TrainingPlan, processor: Any) -> TrainingCheckSection:
        prompts = plan.prompts(0)
        renderer = Renderer(processor.tokenizer, self._name)
        chosen = _spaced(len(prompts))
        texts = [prompts[number].sample.prompt for number in chosen]
        lengths = [len(renderer.message_of("user", [text])) for text in texts]
        tasks = ", ".join(task.name for task in plan.prompts.tasks())
        lines = (
            f"{count(len(prompts), 'prompt')} in the first epoch, of {tasks}",
            f"{count(plan.steps, 'step')} of {self._grpo.rollout.prompts} x {self._grpo.rollout.group} trajectories",
            f"tokens of a prompt: {_spread(lengths)}",
        )
        return TrainingCheckSection("data", lines)

    def _live(
        self, plan: TrainingPlan, folder: Path, processor: Any, *, rollout: bool
    ) -> Iterator[TrainingCheckSection]:
        """Yield what needs the services: are they there, one rollout, one reward."""
        from knowgen.training.grpo.vllm_policy import VllmTrainedPolicy

        renderer = Renderer(processor.tokenizer, self._name)
        fixed = self._open(plan, FixedPolicy(), folder / "fixed")
        try:
            found = [each for each in fixed.check_each() if each[0] != "policy"]
            if self._grpo.rollout.engine == "vllm":
                server = self._open(plan, VllmTrainedPolicy(self._config), folder / "server")
                try:
                    found = [each for each in server.check_each() if each[0] == "policy"] + found
                finally:
                    server.close()
            yield _services(found)
            if any(error for _, error in found):
                return
            episode, answer = None, "the answer of the policy"
            if rollout:
                episode = self._rollout(plan, folder)
                yield _rollout_section(
                    episode, processor.tokenizer, renderer.image, self._grpo.rollout.max_prompt_tokens
                )
            if episode is None or episode.trajectory is None or episode.reward.reason or episode.reward.masked:
                # the policy gave nothing to reward: an answer that is written down shows whether rewards come
                episode = fixed.run([plan.prompts(0)[0]], step=1, seeds=[0])[0]
                answer = "an answer with the prompt as it is, and the first image that is found for it"
            yield _reward_section(episode, plan, answer)
        finally:
            fixed.close()

    def _rollout(self, plan: TrainingPlan, folder: Path) -> Episode:
        policy, ready = self._policy()
        rollouts = self._open(plan, policy, folder / "policy")
        try:
            with ready:
                return rollouts.run([plan.prompts(0)[0]], step=1, seeds=[0])[0]
        finally:
            rollouts.close()
            asyncio.run(policy.close())

    def _policy(self) -> tuple[Policy, Any]:
        """Return the policy that is trained, and a context in which it samples."""
        from knowgen.training.grpo.local_policy import LocalPolicy
        from knowgen.training.grpo.vllm_policy import VllmTrainedPolicy
        from knowgen.training.models import load_policy_model

        if self._grpo.rollout.engine == "vllm":
            return VllmTrainedPolicy(self._config), nullcontext()
        loaded = load_policy_model(self._config.model, self._name)
        base = loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model
        policy = LocalPolicy(base, loaded.processor, batch_size=1, weights=loaded.weights)
        return policy, policy.sampling("check")

    def _open(self, plan: TrainingPlan, policy: Policy, folder: Path) -> AgentRollouts:
        from knowgen.store.training_ledger import TrainingLedger
        from knowgen.store.training_run import TrainingRun
        from knowgen.training.episode_images import EpisodeImages
        from knowgen.training.rollouts import AgentRollouts

        folder.mkdir(parents=True)
        return AgentRollouts(
            self._config, policy, plan.parts, folder=folder, images=EpisodeImages(TrainingRun(folder).images),
            ledger=TrainingLedger(folder),
        )  # fmt: skip


class FixedPolicy:
    """Searches for an image with the prompt as it is, and answers with the first one: for trying rewards."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its name."""
        return {"policy": "fixed"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> PolicySession:
        """Return a new session."""
        return _FixedSession(prompt)

    async def close(self) -> None:
        """Do nothing."""


class _FixedSession:
    def __init__(self, prompt: str) -> None:
        self._prompt, self._calls = prompt, 0

    @property
    def segments(self) -> Sequence[Segment]:
        return ()

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        self._calls += 1
        stop: Finish = "stop"
        if self._calls == 1:
            return PolicyReply(written_call("image_search", query=self._prompt), stop)
        shown = any(message.images for message in messages)
        return PolicyReply(written_answer(self._prompt, *(["IMG_001"] if shown else [])), stop)

    async def close(self) -> None:
        """Do nothing."""


def model_processor(config: TrainingConfig, where: str) -> Any:
    """Return the processor of a model, without its weights.

    Raises:
        UsageError: No model is named.
        MissingDependencyError: A package or the model is not on this machine.
        ConfigError, DataError: It is not a vision-language model.
    """
    from knowgen.local_models.vlm import load_processor
    from knowgen.local_models.vlm_weights import find_weights_folder
    from knowgen.training.models import MINI

    model = config.model
    if not model.path:
        raise UsageError("no model is named", where="model.path", fix="set it to a folder or a name on the hub")
    if model.path.startswith(MINI):
        from knowgen.training.mini_model import mini_processor

        return mini_processor()
    return load_processor(find_weights_folder(model.path, model.revision, model.download, where, "model."), where)


def model_sizes(config: TrainingConfig, where: str) -> ModelSizes:
    """Return the sizes of a model from its config.json; those of the published model are known without it.

    Raises:
        KnowgenError: They are not known.
    """
    from knowgen.local_models.vlm_weights import find_weights_folder
    from knowgen.training.models import MINI

    model = config.model
    if model.path in KNOWN_SIZES:
        return KNOWN_SIZES[model.path]
    if model.path.startswith(MINI):
        from knowgen.training.mini_model import build_mini

        return ModelSizes.of(build_mini(0)[0].config.to_dict(), model.path)
    file = expand_user(model.path) / "config.json"
    if not file.is_file():
        file = find_weights_folder(model.path, model.revision, model.download, where, "model.") / "config.json"
    data = parse_strict_json(file.read_text(encoding="utf-8"), str(file))
    return ModelSizes.of(data if isinstance(data, Mapping) else {}, str(file))


def masked_text(tokenizer: Any, image: int, parts: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> MaskedText:
    """Return token ids as text, cut where trained tokens begin and end.

    Args:
        tokenizer: Tokenizer of the model. Its control tokens are shown, because some are trained.
        image: Id of the image placeholder, whose runs are counted and not shown.
        parts: Token ids, each with whether it is trained.
    """
    pieces: list[tuple[str, bool]] = []
    for ids, trained in parts:
        start = 0
        for place in range(1, len(ids) + 1):
            if place < len(ids) and trained[place] == trained[start]:
                continue
            text = _shown(tokenizer, image, ids[start:place])
            pieces.append((text if trained[start] else _shortened(text), trained[start]))
            start = place
    return MaskedText(tuple(pieces))


def _shown(tokenizer: Any, image: int, ids: Sequence[int]) -> str:
    parts: list[str] = []
    for is_image, run in groupby(ids, key=lambda each: each == image):
        same = list(run)
        text = f"[image, {count(len(same), 'token')}]" if is_image else tokenizer.decode(same)
        parts.append(text)
    return "".join(parts)


def _shortened(text: str) -> str:
    hidden = len(text) - 2 * _PIECE
    return text if hidden <= 0 else f"{text[:_PIECE]} … {hidden} characters … {text[-_PIECE:]}"


def _spaced(size: int) -> list[int]:
    """Return at most `MOST_ENCODED` places below `size`, evenly spaced."""
    if size <= MOST_ENCODED:
        return list(range(size))
    return [place * size // MOST_ENCODED for place in range(MOST_ENCODED)]


def _spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {median(ordered):,.0f}, 95 % at most {high:,}, longest {ordered[-1]:,}"


def _services(found: Sequence[tuple[str, KnowgenError | None]]) -> TrainingCheckSection:
    lines = tuple(f"{name}: {'would take calls' if error is None else 'fails'}" for name, error in found)
    return TrainingCheckSection("services", lines, tuple(error for _, error in found if error is not None))


def _rollout_section(episode: Episode, tokenizer: Any, image: int, most_prompt: int) -> TrainingCheckSection:
    trajectory = episode.trajectory
    if trajectory is None:
        return TrainingCheckSection("one rollout", problems=(KnowgenError(episode.reward.reason, where="rollout"),))
    ending = trajectory.ending.value if trajectory.ending is not None else "no ending"
    calls = sum(len(step.calls) for step in trajectory.steps)
    parts = [(segment.ids, [segment.sampled] * len(segment.ids)) for segment in trajectory.segments]
    lines = [
        f"ended with {ending} after {count(len(trajectory.steps), 'reply', 'replies')} and {count(calls, 'call')}, "
        f"in {duration_text(episode.seconds.get('agent', 0.0))}"
    ]
    problems: list[KnowgenError] = []
    if parts:
        tokens, sampled = sum(len(ids) for ids, _ in parts), sum(sum(trained) for _, trained in parts)
        prompt = sum(len(ids) for ids, trained in takewhile(lambda part: not any(part[1]), parts))
        lines.append(
            f"{count(tokens, 'token')}, {sampled} of them sampled and trained, {prompt} before the first reply"
        )
        if prompt > most_prompt:
            what = f"system prompt and prompt have {prompt} tokens, and may have {most_prompt}"
            problems.append(UsageError(what, where="grpo.rollout.max_prompt_tokens", fix="raise it"))
    masks = masked_text(tokenizer, image, parts) if parts else None
    return TrainingCheckSection("one rollout", tuple(lines), tuple(problems), masks)


def _reward_section(episode: Episode, plan: TrainingPlan, answer: str) -> TrainingCheckSection:
    reward = episode.reward
    if reward.masked:
        problem = KnowgenError(f"the episode would be masked: {reward.reason}", where="grpo.reward")
        return TrainingCheckSection("one reward", problems=(problem,))
    halves = [
        f"{name} {value:.3f}" for name, value in (("image", reward.image), ("text", reward.text)) if value is not None
    ]
    lines = [f"{reward.value:.3f}" + (f" ({', '.join(halves)})" if halves else "") + f" for {answer}"]
    if reward.reason:
        lines.append(f"decided by a rule: {reward.reason}")
    lines += [f"{name.replace('_', ' ')}: {duration_text(seconds)}" for name, seconds in episode.seconds.items()]
    if episode.cost is None:
        lines.append("cost: unknown, because a service reports no price")
    else:
        rollout = plan.grpo.rollout
        sampled = -(-plan.steps // plan.grpo.iterations)  # further steps are on the same episodes
        whole = episode.cost * rollout.prompts * rollout.group * sampled
        lines.append(f"cost: ${episode.cost:.4f}, of all episodes at this price ${whole:,.2f}")
    return TrainingCheckSection("one reward", tuple(lines))


def _estimate_section(check: _Sft | _Grpo, gpu: Gpu, number: int) -> TrainingCheckSection:
    title = f"estimate for {number} x {gpu.name}"
    try:
        estimate = check.estimate(model_sizes(check.config, "model.path"), gpu, number)
    except KnowgenError as error:
        return TrainingCheckSection(title, problems=(error,))
    lines: list[str] = []
    problems: list[KnowgenError] = []
    for role, memory in estimate.memory:
        needed, available = memory_text(memory.total), memory_text(memory.available)
        lines.append(f"{role}: {needed} of {available} on each GPU")
        lines += [f"  {memory_text(part.value):>10}  {part.name}" for part in memory.parts if part.value]
        if not memory.fits:
            fix = "take more or larger GPUs, low-rank adapters (model.lora), or shorter sequences"
            what = f"{role} needs {needed} on each, and {available} can be used"
            problems.append(KnowgenError(what, where=f"{number} x {gpu.name}", fix=fix))
    parts = ", ".join(f"{part.name} {duration_text(part.value)}" for part in estimate.step)
    total = (
        f"{count(estimate.steps, 'step')}: {duration_text(estimate.seconds)}" if estimate.steps else "steps: unknown"
    )
    lines.append(f"a step: {parts}; {total}")
    lines += [f"assumed: {each}" for each in estimate.assumptions]
    return TrainingCheckSection(title, tuple(lines), tuple(problems))
