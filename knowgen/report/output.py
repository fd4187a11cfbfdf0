"""Where a page goes: a folder with data, images and scripts beside it, or one file that has all of them inside."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Literal, get_args

from markupsafe import Markup

from knowgen.core.atomic import draft_of
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder
from knowgen.report.folder import ReportDraft
from knowgen.report.image_files import ShownImage, make_images
from knowgen.report.script_json import as_script_json, write_data

ImageChoice = Literal["small", "none"]
"""Images of a page in one file: reduced to 512 pixels, or none."""

IMAGE_CHOICES: tuple[ImageChoice, ...] = get_args(ImageChoice)

GENERATOR = "knowgen report"
"""Content of the `generator` element of every page; a file without it is not replaced."""

BLOCK = 50
"""Number of images in one block of a single file; the page decodes a block when it shows one of its images."""

AT_ONCE = 2_000
"""Number of images whose files exist at a time, before they are put into the page."""

LEFT_OUT = "images are left out of this file"
"""Why an image is not shown in a page without images."""

_HERE = "<!--embedded-->"
"""Place of the data in the page of a single file."""


class PageOutput(ABC):
    """Receives the images, the data and at last the HTML of a page.

    Attributes:
        single: Whether everything is in one file.
    """

    single: bool

    @property
    @abstractmethod
    def policy(self) -> str:
        """Content security policy of the page."""

    @abstractmethod
    def style(self, name: str) -> Markup:
        """Return the element that applies a style sheet."""

    @abstractmethod
    def script(self, name: str, *, defer: bool = True) -> Markup:
        """Return the element that runs a script, when the page is complete or in its place."""

    @abstractmethod
    def data_scripts(self, *names: str) -> Markup:
        """Return the elements that provide data before the other scripts run."""

    @abstractmethod
    def icon(self) -> str:
        """Return the address of the icon."""

    @abstractmethod
    def images(
        self, images: Iterable[tuple[ImageRef, Path | None]], meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, ShownImage]:
        """Add images and return them by digest; `meanwhile` adds other things. See `make_images`."""

    @abstractmethod
    def data(self, name: str, value: Any) -> None:
        """Add data that the page reads at once or when they are shown."""

    @abstractmethod
    def text_link(self, name: str, text: str) -> str:
        """Add a text file that the page offers, and return its address."""

    @abstractmethod
    def page(self, html: str) -> None:
        """Write the page; nothing may be added after that."""


class FolderOutput(PageOutput):
    """A page with files beside it.

    Args:
        draft: The folder that is written.
        static: Names of the scripts and style sheets.
    """

    single = False
    policy = (
        "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )

    def __init__(self, draft: ReportDraft, static: Sequence[str]) -> None:
        self._draft = draft
        draft.add_static((*static, "icon.svg"))

    def style(self, name: str) -> Markup:
        """Return a link to the style sheet."""
        return Markup('<link rel="stylesheet" href="static/{}">').format(name)

    def script(self, name: str, *, defer: bool = True) -> Markup:
        """Return the element that loads the script."""
        return Markup('<script src="static/{}"{}></script>').format(name, Markup(" defer" if defer else ""))

    def data_scripts(self, *names: str) -> Markup:
        """Return the elements that load the data."""
        return Markup("\n").join(Markup('<script src="data/{}.js" defer></script>').format(name) for name in names)

    def icon(self) -> str:
        """Return the address of the icon in the folder."""
        return "static/icon.svg"

    def images(
        self, images: Iterable[tuple[ImageRef, Path | None]], meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, ShownImage]:
        """Write the files of each image, and reuse those of an earlier report."""
        return make_images(images, self._draft.folder / "img", self._draft.earlier, meanwhile=meanwhile)

    def data(self, name: str, value: Any) -> None:
        """Write a script of its own, which the page adds when the data are shown."""
        write_data(self._draft.folder / "data", name, value)

    def text_link(self, name: str, text: str) -> str:
        """Write the file into the folder of the data."""
        (self._draft.folder / "data" / name).write_text(text, encoding="utf-8")
        return f"data/{name}"

    def page(self, html: str) -> None:
        """Write `index.html`."""
        (self._draft.folder / "index.html").write_text(html, encoding="utf-8")


class SingleFileOutput(PageOutput):
    """A page with scripts, style sheets, data and small images inside it.

    Scripts and style sheets are named in the content security policy by their hashes. Data are in elements that are no
    scripts, as JSON without `<`, `>` and `&`, so that no text in them can end its element; the page parses one when it
    is shown. They are collected in a temporary file, so that memory does not grow with their number.

    Args:
        target: The file to write.
        spool: Open temporary file for the data.
        scratch: Empty folder for images.
        static: Names of the scripts and style sheets; others are refused by the policy.
        keep: Which images are put in.
    """

    single = True

    def __init__(
        self, target: Path, spool: IO[bytes], scratch: Path, static: Sequence[str], keep: ImageChoice = "small"
    ) -> None:
        self._target, self._spool, self._scratch, self._keep = target, spool, scratch, keep
        names = (*static, "embedded.js")
        self._static = {name: _static_text(name) for name in names}
        self._shown: dict[str, ShownImage] = {}
        self._pending: list[str] = []
        self._count = 0

    @property
    def policy(self) -> str:
        """Policy that names each script and style sheet by its hash."""
        hashes: dict[str, list[str]] = {".js": [], ".css": []}
        for name, text in self._static.items():
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            hashes[Path(name).suffix].append(f"'sha256-{digest}'")
        scripts, styles = (" ".join(hashes[kind]) for kind in (".js", ".css"))
        return (
            f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )

    def style(self, name: str) -> Markup:
        """Return the style sheet itself."""
        return Markup("<style>{}</style>").format(Markup(self._static[name]))

    def script(self, name: str, *, defer: bool = True) -> Markup:
        """Return the script itself; scripts at the end of the page need not be deferred."""
        return Markup("<script>{}</script>").format(Markup(self._static[name]))

    def data_scripts(self, *names: str) -> Markup:
        """Return the place of all data, and the script that reads these ones at once."""
        now = Markup('<script type="application/json" id="embedded-now">{}</script>')
        return Markup(_HERE) + now.format(Markup(as_script_json(list(names)))) + self.script("embedded.js")

    def icon(self) -> str:
        """Return the icon as a data URL."""
        return _data_url("image/svg+xml", _static_text("icon.svg").encode())

    def images(
        self, images: Iterable[tuple[ImageRef, Path | None]], meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, ShownImage]:
        """Put each image into a block of images; their names are their numbers."""
        meanwhile()
        once = {ref.sha256: (ref, path) for ref, path in images}
        if self._keep == "none":
            left_out = ShownImage(fault=LEFT_OUT)
            return dict.fromkeys(once, left_out)
        new = [entry for digest, entry in once.items() if digest not in self._shown]
        for start in range(0, len(new), AT_ONCE):
            self._add_images(make_images(new[start : start + AT_ONCE], self._scratch, large=False))
        return {digest: self._shown[digest] for digest in once}

    def _add_images(self, made: dict[str, ShownImage]) -> None:
        for digest, image in made.items():
            if image.fault:
                self._shown[digest] = image
                continue
            path = self._scratch / image.small
            self._pending.append(_data_url("image/webp", path.read_bytes()))
            path.unlink()
            self._shown[digest] = ShownImage(str(self._count), "", image.width, image.height)
            self._count += 1
            if len(self._pending) == BLOCK:
                self._flush_images()

    def _flush_images(self) -> None:
        if self._pending:
            self.data(f"images-{(self._count - 1) // BLOCK}", self._pending)
            self._pending = []

    def data(self, name: str, value: Any) -> None:
        """Append a block of data."""
        line = f'<script type="application/json" data-name="{name}">{as_script_json(value)}</script>\n'
        self._spool.write(line.encode())

    def text_link(self, name: str, text: str) -> str:
        """Return the text as a data URL."""
        return _data_url("text/plain", text.encode())

    def page(self, html: str) -> None:
        """Write the page with all data in their place."""
        self._flush_images()
        before, _, after = html.partition(_HERE)
        self._spool.seek(0)
        with draft_of(self._target) as draft, draft.open("wb") as file:
            file.write(before.encode())
            while part := self._spool.read(1 << 20):
                file.write(part)
            file.write(after.encode())


@contextmanager
def single_file(target: Path, static: Sequence[str], keep: ImageChoice = "small") -> Iterator[SingleFileOutput]:
    """Yield the output of a page in one file.

    Args:
        target: The file to write, with the ending .html or .htm. An earlier page of this program is replaced.
        static: Names of the scripts and style sheets.
        keep: Which images are put in.

    Raises:
        UsageError: The name has another ending.
        ConfigError: It is a folder, or a file that is not such a page.
        DataError: It cannot be written.
    """
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ScratchFolder("knowgen.page.") as scratch, tempfile.TemporaryFile(dir=scratch) as spool:
            yield SingleFileOutput(target, spool, scratch, static, keep)
    except OSError as error:
        where = str(error.filename or target)
        raise DataError(
            f"cannot be written: {error.strerror or error}", where=where, fix="free space or name another file"
        ) from error


def check_target(target: Path) -> None:
    """Check that a page may be written to a file; errors as of `single_file`."""
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError("one file is a page of HTML", where=str(target), fix="end its name with .html")
    if target.is_dir():
        raise ConfigError("is a folder", where=str(target), fix="name a file with -o")
    if not target.exists():
        return
    with target.open("rb") as file:
        start = file.read(2_000).decode("utf-8", "replace")
    if start and GENERATOR not in start:
        raise ConfigError("the file is not a report", where=str(target), fix="name a new file with -o")


def _static_text(name: str) -> str:
    return files("knowgen.report").joinpath("static", name).read_text(encoding="utf-8")


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.standard_b64encode(data).decode('ascii')}"
