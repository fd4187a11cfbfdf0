"""Small images in the terminal: by the terminal's own image protocol, or as blocks of two colours.

Sources, looked up in 2026-11:

- kitty: sw.kovidgoyal.net/kitty/graphics-protocol: `ESC _G keys;base64 ESC \\`, keys with the first chunk, `m=1` in all
  chunks but the last, at most 4096 bytes of base64 in each; `a=T` transmits and shows, `f=100` is PNG, `c` and `r` are
  columns and rows, `q=2` suppresses the terminal's reply, which would arrive as if it were typed.
- iTerm2: iterm2.com/documentation-images.html: `ESC ]1337;File=arguments:base64 BEL`; `inline=1` shows the image, and
  `width` and `height` without a unit are character cells.

Images come from strangers, so none is passed on as it is: each is opened, reduced and encoded again.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Method = Literal["kitty", "iterm", "blocks", ""]
"""How a terminal shows images; empty for one that shows none."""

CHUNK = 4096
"""Maximum number of base64 characters in one sequence of kitty's protocol."""

CELL_PIXELS = (10, 20)
"""Assumed width and height of a character cell in pixels. Only the sharpness of a shown image depends on it."""

_KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
_ITERM_PROGRAMS = ("iTerm.app", "WezTerm")
_MULTIPLEXERS = ("screen", "tmux")
_UPPER_HALF = "\u2580"
_RESET = "\x1b[0m"


def image_method(environment: Mapping[str, str], *, terminal: bool) -> Method:
    """Return how the terminal of this process shows images.

    Args:
        environment: Environment variables.
        terminal: Whether the output is a terminal.

    Example:
        >>> image_method({"TERM": "xterm-kitty"}, terminal=True)
        'kitty'
        >>> image_method({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, terminal=True)
        'blocks'
        >>> image_method({"TERM": "xterm-kitty", "NO_COLOR": "1"}, terminal=True)
        ''
    """
    term = environment.get("TERM", "")
    if not terminal or environment.get("NO_COLOR") or term in ("", "dumb"):
        return ""
    if not term.startswith(_MULTIPLEXERS) and not environment.get("TMUX"):
        if term in _KITTY_TERMS or environment.get("KITTY_WINDOW_ID"):
            return "kitty"
        names = (environment.get("TERM_PROGRAM", ""), environment.get("LC_TERMINAL", ""))
        if names[0] in _ITERM_PROGRAMS or names[1] == "iTerm2":
            return "iterm"
    return "blocks" if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit") else ""


def shown_images(paths: Sequence[Path], method: Method, *, columns: int, rows: int) -> str:
    """Return text that shows images when it is written to the terminal, ending in a line break.

    With blocks, images stand side by side as far as they fit; with a protocol, one below the other.

    Args:
        paths: Files of the images.
        method: How the terminal shows them.
        columns: Width of the terminal, in character cells.
        rows: Height of each image, in character cells.

    Raises:
        UnreadableImageError: A file is missing or is not an image.
    """
    from knowgen.core.images import open_rgb

    if not method:
        return ""
    images = [open_rgb(path) for path in paths]
    if method == "blocks":
        return _side_by_side([_blocks(image, columns, rows) for image in images], columns)
    draw = _kitty if method == "kitty" else _iterm
    return "".join(f"{draw(image, *_cells(image, columns, rows))}\n" for image in images)


def _cells(image: Image, columns: int, rows: int) -> tuple[int, int]:
    """Return the columns and rows that an image takes, with its own aspect ratio."""
    width = rows * CELL_PIXELS[1] / CELL_PIXELS[0] * image.width / image.height
    if width <= columns:
        return max(1, round(width)), rows
    height = columns * CELL_PIXELS[0] / CELL_PIXELS[1] * image.height / image.width
    return columns, max(1, round(height))


def _png(image: Image, columns: int, rows: int) -> bytes:
    reduced = image.copy()
    reduced.thumbnail((columns * CELL_PIXELS[0], rows * CELL_PIXELS[1]))
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG")
    return buffer.getvalue()


def _kitty(image: Image, columns: int, rows: int) -> str:
    data = base64.standard_b64encode(_png(image, columns, rows)).decode("ascii")
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    text = ""
    for number, chunk in enumerate(chunks):
        keys = f"a=T,f=100,q=2,c={columns},r={rows}," if number == 0 else "q=2,"
        text += f"\x1b_G{keys}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
    return text


def _iterm(image: Image, columns: int, rows: int) -> str:
    png = _png(image, columns, rows)
    data = base64.standard_b64encode(png).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(png)};width={columns};height={rows};preserveAspectRatio=1:{data}\x07"


def _blocks(image: Image, columns: int, rows: int) -> list[str]:
    """Return the lines of an image, with two pixels in each cell: one in its text colour, one in its background."""
    width, height = _cells(image, columns, rows)
    small = image.convert("RGB").resize((width, 2 * height))
    data = small.tobytes()

    def colour(x: int, y: int) -> str:
        start = 3 * (y * width + x)
        return ";".join(str(value) for value in data[start : start + 3])

    return [
        "".join(f"\x1b[38;2;{colour(x, y)};48;2;{colour(x, y + 1)}m{_UPPER_HALF}" for x in range(width)) + _RESET
        for y in range(0, 2 * height, 2)
    ]


def _side_by_side(images: Sequence[list[str]], columns: int) -> str:
    """Return the lines of images in rows of images, as many in each as fit."""
    text, used = "", 0
    row: list[list[str]] = []
    for lines in images:
        width = lines[0].count(_UPPER_HALF)
        if row and used + 1 + width > columns:
            text, row, used = text + _joined(row), [], 0
        row.append(lines)
        used += width + 1
    return text + (_joined(row) if row else "")


def _joined(row: Sequence[list[str]]) -> str:
    height = max(len(lines) for lines in row)
    padded = [lines + [" " * lines[0].count(_UPPER_HALF)] * (height - len(lines)) for lines in row]
    return "".join(" ".join(parts) + "\n" for parts in zip(*padded, strict=True))
