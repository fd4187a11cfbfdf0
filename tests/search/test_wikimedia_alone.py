"""The backend `wikimedia` needs what `pip install 'knowgen[search]'` brings, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.search_services import WikimediaServer

USE = """
import asyncio, importlib.abc, json, os, sys

class Absent(importlib.abc.MetaPathFinder):
    asked = set()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            self.asked.add(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

before = {name.partition(".")[0] for name in sys.modules}  # what a start of the interpreter loads
given = json.loads(sys.stdin.read())
ABSENT = set(given["absent"])
sys.meta_path.insert(0, Absent())

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.search.load import load_search

async def use():
    backend = load_search("wikimedia", given["arguments"])
    print(json.dumps({
        "warning": await backend.check_service(),
        "pages": [hit.title for hit in await backend.search("harrow union", 3)],
        "images": [hit.image is not None for hit in await backend.image_search("harrow union", 2)],
        "text": (await backend.open(given["page"])).text,
        "fetched": (await backend.open(given["web_page"])).text,
        "loaded": sorted(ABSENT & {name.partition(".")[0] for name in sys.modules} - before),
    }))
    await backend.close()

asyncio.run(use())
"""


def installed_with(name: str, extras: frozenset[str]) -> set[str]:
    """Return the distributions that are installed with a distribution and some of its extras, that one included."""
    found: dict[str, frozenset[str]] = {}
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        name, extras = waiting.pop()
        if extras <= found.get(name, frozenset()) and name in found:
            continue
        found[name] = found.get(name, frozenset()) | extras
        try:
            listed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # for another platform or version of Python
        for each in listed:
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((canonicalize_name(each.name), frozenset(each.extras)))
    return set(found)


def absent_modules() -> list[str]:
    """Return the modules of this environment that `knowgen[search]` does not bring."""
    brought = installed_with("knowgen", frozenset({"search"}))
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
    )


def test_wikimedia_finds_and_opens_pages_and_images_with_the_extra_search_alone() -> None:
    absent = absent_modules()
    assert {"torch", "transformers", "diffusers", "fastapi", "openai", "pytest"} <= set(absent)
    assert not {"aiohttp", "pydantic", "trafilatura", "protego", "imagehash", "PIL", "numpy"} & set(absent)
    with WikimediaServer() as server:
        arguments = {"base_url": server.api, "images_url": server.api, "contact": "me@example.org"}
        page = f"{server.address}/wiki/Harrow_Union"
        given = {"absent": absent, "arguments": arguments, "page": page, "web_page": page}
        done = subprocess.run(
            [sys.executable, "-c", USE], input=json.dumps(given), capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pages"] == ["Harrow Union"] and found["images"] == [True]
    assert "plays in green" in found["text"] and found["warning"] == "" and found["loaded"] == []
