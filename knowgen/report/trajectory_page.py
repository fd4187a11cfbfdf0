"""Write the page of one trajectory: a single HTML file with the image, the references and every step.

Its images are inside it, reduced, so that the file can be sent or kept alone. It has no script and loads nothing.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError
from knowgen.core.images import UnreadableImageError
from knowgen.core.records import AgentAnswer, Generation, ImageRef
from knowgen.core.spec import RunSpec
from knowgen.report.page import environment

SEEN_SIDE = 256
"""Longest side of an image that the agent saw, in pixels."""

FINAL_SIDE = 1024
"""Longest side of the generated image, in pixels."""

_LINKED = ("http://", "https://")


@dataclass(frozen=True)
class PageImage:
    """An image on the page.

    Attributes:
        name: Its id in the trajectory, or what it is.
        title: Title as its source gives it.
        address: Address of its page or file; empty when unknown.
        note: The agent's note on it.
        data: The image as a data URL; empty when it cannot be shown.
        width: Width of the original in pixels.
        height: Height of the original in pixels.
    """

    name: str
    title: str = ""
    address: str = ""
    note: str = ""
    data: str = ""
    width: int = 0
    height: int = 0

    @property
    def link(self) -> str:
        """Return the address if it may be a link, else nothing: it comes from strangers."""
        return self.address if self.address.startswith(_LINKED) else ""


@dataclass(frozen=True)
class PageStep:
    """A step of the timeline."""

    number: str
    thought: str
    calls: tuple[tuple[str, str], ...]
    reply: str
    observation: str
    images: tuple[PageImage, ...]
    notes: tuple[str, ...]
    seconds: float
    cost: float | None


def write_trajectory_page(
    path: Path, prompt: str, spec: RunSpec, answer: AgentAnswer, generation: Generation | None
) -> Path:
    """Write the page of a trajectory and return its path.

    Args:
        path: File to write.
        prompt: The prompt of the sample.
        spec: The run that it belongs to.
        answer: The agent's answer, with the paths of its images.
        generation: The image; None without one.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        write_file(path, render_trajectory(prompt, spec, answer, generation))
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise DataError(what, where=str(path), fix="free space or name another folder") from error
    return path


def _style(name: str) -> Markup:
    """Return a style sheet of the project, which goes into the page as it is."""
    return Markup(files("knowgen.report").joinpath("static", name).read_text(encoding="utf-8"))


def render_trajectory(prompt: str, spec: RunSpec, answer: AgentAnswer, generation: Generation | None) -> str:
    """Return the HTML of the page; arguments as for `write_trajectory_page`."""
    pictures = _Pictures(answer.images)
    image = generation.image if generation is not None else None
    return (
        environment()
        .get_template("trajectory.html")
        .render(
            css=_style("report.css"),
            own_css=_style("trajectory.css"),
            prompt=prompt,
            system=spec.system,
            parts=_parts(spec),
            answer=answer,
            generation=generation,
            image=_page_image(image, "generated image", FINAL_SIDE) if image is not None else None,
            references=[
                _page_image(
                    reference,
                    str(note.get("img_id", "")),
                    SEEN_SIDE,
                    title=str(note.get("title", "")),
                    address=str(note.get("page_url") or note.get("url") or ""),
                    note=str(note.get("note", "")),
                )
                for reference, note in _with_notes(answer)
            ],
            steps=[_step(each, pictures) for each in answer.trajectory],
            painter_seconds=generation.seconds if generation is not None else None,
            painter_cost=generation.usage.cost if generation is not None else None,
        )
    )


def _with_notes(answer: AgentAnswer) -> Iterable[tuple[ImageRef, Mapping[str, Any]]]:
    notes = answer.reference_notes or tuple({} for _ in answer.references)
    return zip(answer.references, notes, strict=False)


def _parts(spec: RunSpec) -> list[tuple[str, str]]:
    """Return what took part, by role."""
    agent = spec.agent
    parts = [] if agent is None else [(role, part.name) for role, part in sorted(agent.parts.items())]
    if agent is not None and agent.search:
        parts.append(("search", agent.search))
    return [*parts, ("image model", spec.generator.label), ("seed", str(spec.seed))]


class _Pictures:
    """The images of a trajectory, by the ids that its steps give them."""

    def __init__(self, images: Iterable[ImageRef]) -> None:
        self._files = {image.sha256: image for image in images}
        self._by_id: dict[str, PageImage] = {}

    def add(self, seen: Mapping[str, Any]) -> None:
        """Add an image that a step lists for the first time."""
        name = str(seen.get("id", ""))
        image = self._files.get(str(seen.get("image", {}).get("sha256", "")))
        title, address = str(seen.get("title", "")), str(seen.get("page_url") or seen.get("url") or "")
        if image is None:
            self._by_id[name] = PageImage(name, title, address)
        else:
            self._by_id[name] = _page_image(image, name, SEEN_SIDE, title=title, address=address)

    def named(self, name: str) -> PageImage:
        """Return an image by its id."""
        return self._by_id.get(name, PageImage(name))


def _step(step: Mapping[str, Any], pictures: _Pictures) -> PageStep:
    for seen in step.get("new_images", ()):
        pictures.add(seen)
    usage = [step.get(name, {}).get("cost", 0.0) for name in ("policy_usage", "tool_usage")]
    capped = step.get("capped", 0)
    notes = [step.get("error", ""), *(f"not fetched: {reason}" for reason in step.get("blocked", ()))]
    notes.append(f"{capped} tokens of the result were cut" if capped else "")
    calls = tuple(
        (str(call.get("name", "")), json.dumps(call.get("arguments"), ensure_ascii=False, indent=1))
        for call in step.get("calls", ())
    )
    return PageStep(
        number=f"Round {step['round']}" if step.get("round") else "Last call",
        thought=str(step.get("thought", "")),
        calls=calls,
        reply=str(step.get("reply", "")),
        observation=str(step.get("observation", "")),
        images=tuple(pictures.named(str(name)) for name in step.get("images", ())),
        notes=tuple(note for note in notes if note),
        seconds=float(step.get("policy_seconds", 0.0)) + float(step.get("tool_seconds", 0.0)),
        cost=None if None in usage else sum(usage),
    )


def _page_image(
    image: ImageRef, name: str, side: int, *, title: str = "", address: str = "", note: str = ""
) -> PageImage:
    return PageImage(name, title, address, note, _data_url(image, side), image.width, image.height)


def _data_url(image: ImageRef, side: int) -> str:
    """Return a reduced copy of an image as a data URL; nothing when its file is missing or does not open."""
    try:
        opened = image.open()
    except UnreadableImageError:
        return ""  # the page says so in its place
    opened.thumbnail((side, side))
    buffer = io.BytesIO()
    opened.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.standard_b64encode(buffer.getvalue()).decode('ascii')}"
