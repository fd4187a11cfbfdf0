"""The trajectories of a run's agent: exported as JSON Lines in chat form, and as text for a terminal.

A line of an export is one answer:

    {"id": …, "repeat": 0, "seed": 0, "prompt": …, "ending": "answer", "status": "ok", "reason": "",
     "messages": [{"role": "system" | "user" | "assistant", "content": TEXT or [PART, …]}, …],
     "gen_prompt": …, "reference_images": [{"img_id": …, "path": …, "sha256": …, "note": …}, …], "evidence": […]}

A part is `{"type": "text", "text": …}` or `{"type": "image", "image": PATH, "sha256": …, "id": …}`. A message of the
policy has its `finish` and the parsed `calls`, whose text is in its content too. No line has a score. `--requests FILE`
reads prompts and references from it, and the policy `replay:FILE` its replies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.atomic import draft_of
from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import AgentAnswer, AnswerStatus, ImageRef, Sample
from knowgen.core.sample_ids import comparable_id
from knowgen.store.files import explain_os_error
from knowgen.store.run import RunStore

_NO_AGENT_FIX = "name a run directory whose generator is an agent, such as gen_searcher"


@dataclass(frozen=True)
class ExportedTrajectories:
    """What an export wrote.

    Attributes:
        lines: Number of lines.
        left_out: Number of answers without a trajectory that came to an ending: they failed.
    """

    lines: int
    left_out: int


def stored_answers(store: RunStore, ids: Sequence[str] | None = None) -> Iterator[tuple[Sample, AgentAnswer]]:
    """Yield the answers of a run's agent with their samples, in the order of the samples.

    Args:
        store: The run.
        ids: Only these samples; all when None.

    Raises:
        UsageError: The run has no agent, or no sample of a name.
    """
    if store.spec.agent is None:
        raise UsageError(
            "the run has no trajectories: its generator is not an agent", where=str(store.path), fix=_NO_AGENT_FIX
        )
    samples = {sample.id: sample for sample in store.samples()}
    known = {comparable_id(name) for name in samples}
    wanted = None if ids is None else {comparable_id(name): name for name in ids}
    for form, name in (wanted or {}).items():
        if form not in known:
            raise UsageError(f"the run has no sample {name!r}", where=str(store.path), fix="its ids are on its page")
    for _, answer in store.answers():
        if answer.sample_id in samples and (wanted is None or comparable_id(answer.sample_id) in wanted):
            yield samples[answer.sample_id], answer


def export_trajectories(run: Path, out: Path, ids: Sequence[str] | None = None) -> ExportedTrajectories:
    """Write the trajectories of a run's agent as JSON Lines in chat form.

    Images are named by their paths, relative to the file where they lie below its folder, and by their hashes.

    Args:
        run: Run directory of an agent.
        out: The file to write.
        ids: Only these samples; all when None.

    Raises:
        UsageError: The run has no agent, or no sample of a name, or `out` is a folder.
        DataError: `run` is not a run directory, has no trajectory, or `out` cannot be written.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder", fix="name a file")
    lines = left_out = 0
    with RunStore.read(run) as store:
        answers = stored_answers(store, ids)
        try:
            with draft_of(out) as draft, draft.open("w", encoding="utf-8") as file:
                for sample, answer in answers:
                    if answer.status not in (AnswerStatus.OK, AnswerStatus.NONE):
                        left_out += 1
                        continue
                    line = chat_record(store, sample, answer, out.absolute().parent)
                    file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n")
                    lines += 1
                if not lines:
                    why = f"{left_out} answers failed" if left_out else "the agent has not answered yet"
                    raise DataError(f"has no trajectory to export: {why}", where=str(run), fix="run it again")
        except OSError as error:
            raise explain_os_error(error, out) from error
    return ExportedTrajectories(lines, left_out)


def chat_record(store: RunStore, sample: Sample, answer: AgentAnswer, folder: Path) -> dict[str, Any]:
    """Return a line of an export.

    Args:
        store: The run.
        sample: The sample.
        answer: Its answer.
        folder: Folder of the file, to which paths of images are relative where they lie below it.
    """
    assert store.spec.agent is not None
    images = RunImages.of(store, folder)
    references = zip(answer.references, answer.reference_notes, strict=False)
    return {
        "id": sample.id,
        "repeat": answer.repeat,
        "seed": store.spec.seed + answer.repeat,
        "prompt": sample.prompt,
        "status": answer.status.value,
        "ending": answer.ending,
        "reason": answer.reason,
        "messages": list(chat_messages(answer, sample.prompt, images)),
        "gen_prompt": answer.prompt,
        "reference_images": [{**note, "path": images.path(ref), "sha256": ref.sha256} for ref, note in references],
        "evidence": list(answer.evidence),
        "agent": store.spec.label,
        "task": store.spec.task,
        "task_version": store.spec.task_version,
    }


class RunImages:
    """Paths of a run's images, and the parts of messages that show them.

    Args:
        store: The run.
        folder: Folder to which paths are relative where they lie below it.
        first: Whether images come before the text of their message.
    """

    def __init__(self, store: RunStore, folder: Path, *, first: bool) -> None:
        self._store, self._folder, self._first = store, folder, first
        self._known: dict[str, ImageRef] = {}

    @classmethod
    def of(cls, store: RunStore, folder: Path) -> RunImages:
        """Return the images of a run in the order of its agent's messages."""
        assert store.spec.agent is not None
        return cls(store, folder, first=store.spec.agent.args.get("images", "first") != "last")

    def path(self, image: ImageRef) -> str:
        """Return the path of an image."""
        path = self._store.image_path(image).absolute()
        return str(path.relative_to(self._folder) if path.is_relative_to(self._folder) else path)

    def add(self, step: Mapping[str, Any]) -> None:
        """Remember the images that a step listed for the first time."""
        for each in step.get("new_images") or ():
            self._known[str(each["id"])] = ImageRef.model_validate(each["image"])

    def content(self, text: str, names: Sequence[str]) -> str | list[dict[str, Any]]:
        """Return the content of a message with images by id."""
        shown = [
            {"type": "image", "image": self.path(image), "sha256": image.sha256, "id": name}
            for name in names
            if (image := self._known.get(name)) is not None
        ]
        words = [{"type": "text", "text": text}]
        if not shown:
            return text
        return [*shown, *words] if self._first else [*words, *shown]


def chat_messages(answer: AgentAnswer, prompt: str, images: RunImages) -> Iterator[dict[str, Any]]:
    """Yield the messages of a conversation, oldest first."""
    if answer.system:
        yield {"role": "system", "content": answer.system}
    yield {"role": "user", "content": prompt}
    for step in answer.trajectory:
        if step.get("instruction"):
            yield {"role": "user", "content": step["instruction"]}
        if step.get("reply") or step.get("finish"):  # a policy that failed has not replied
            reply = {"role": "assistant", "content": step.get("reply", ""), "finish": step.get("finish", "")}
            yield {**reply, "calls": list(step.get("calls") or ())} if step.get("calls") else reply
        images.add(step)
        if step.get("observation"):
            yield {"role": "user", "content": images.content(step["observation"], step.get("images") or ())}
