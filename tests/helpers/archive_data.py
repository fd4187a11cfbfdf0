"""Small data sets in the published layout: a JSON array of rows, and archives of images beside it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""A function that runs `knowgen` with arguments and environment variables."""

BENCH, TRAIN = "GenSearcher/KnowGen-Bench", "GenSearcher/Train-Data"
BENCH_FILE, SFT_FILE, RL_FILE = "KnowGen-Bench.json", "sft_data.json", "rl_data.json"


def image_bytes(number: int, kind: str = "PNG", size: tuple[int, int] | None = None) -> bytes:
    """Return the file of an image that is unique to `number`."""
    buffer = io.BytesIO()
    colour = (number % 256, number // 256 % 256, 80)
    Image.new("RGB", size or (20 + number % 7, 16), colour).save(buffer, kind)
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bench_rows() -> list[dict[str, Any]]:
    """Return six rows, one for each way in which published rows record image paths."""
    names = [
        "images/a.png",
        "KnowGen-Bench/images/b.png",
        "/home/somebody/data/KnowGen-Bench/images/deep/c.jpg",
        "D:\\data\\images\\d.png",
        "e.png",
        "images/pop/a.png",
    ]
    categories = ["Astronomy", "anime", "news", "Multi-Subject-Game", "art", "film"]
    return [
        {
            "id": number,
            "prompt": f"Prompt {number}, with a sign that reads ‘{number}’",
            "meta": {"category": category, "difficulty": ["easy", "hard"][number % 2], "lang": "en"},
            "gt_image": name,
        }
        for number, (name, category) in enumerate(zip(names, categories, strict=True))
    ]


def bench_files(rows: list[dict[str, Any]] | None = None) -> dict[str, bytes]:
    """Return the benchmark's files: two zips and a tar, images in nested folders, one file name in two of them."""
    return {
        BENCH_FILE: json.dumps(bench_rows() if rows is None else rows).encode(),
        "images.zip": zipped({"a.png": image_bytes(0), "b.png": image_bytes(1), "__MACOSX/._a.png": b"junk"}),
        "packs/part2.zip": zipped(
            {
                "x/images/deep/c.jpg": image_bytes(2, "JPEG"),
                "x/images/d.png": image_bytes(3),
                "x/images/pop/a.png": image_bytes(5),
            }
        ),
        "more.tar.gz": tarred({"./images/e.png": image_bytes(4), "./notes.txt": b"not an image"}),
        "README.md": b"never fetched",
    }


def sft_row(number: int, images: int, marks: int | None = None) -> dict[str, Any]:
    """Return a conversation with images, and one mark per image unless `marks` is given."""
    marks = images if marks is None else marks
    return {
        "id": f"c{number}",
        "messages": [
            {"role": "system", "content": "You may search."},
            {"role": "user", "content": "Draw it. " + "<image>" * min(marks, 1)},
            {"role": "assistant", "content": "I look." + " <image>" * (marks - min(marks, 1))},
        ],
        "images": [f"train/images/p{number}_{each}.png" for each in range(images)],
    }


def train_files(sft: list[dict[str, Any]], rl: list[dict[str, Any]], members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of the training repository: the rows of both sets, and their images in two zips."""
    names = list(members)
    half = len(names) // 2
    return {
        SFT_FILE: json.dumps(sft).encode(),
        RL_FILE: json.dumps(rl).encode(),
        "train_1.zip": zipped({name: members[name] for name in names[:half]}),
        "train_2.zip": zipped({name: members[name] for name in names[half:]}),
    }
