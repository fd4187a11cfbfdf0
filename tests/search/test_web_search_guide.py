"""The guide `docs/guides/web_search.md`: its script runs, and its names, arguments and prices are those of the code."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest

from knowgen.cli.doctor import KEYS
from knowgen.clients.pricing import SEARCH_PRICES, price_list
from knowgen.core import registry
from knowgen.search.services.base import SearchAccess, ServiceSearch
from knowgen.search.services.brave import Brave
from knowgen.search.services.searxng import Searxng
from knowgen.search.services.serper import Serper
from knowgen.search.services.tavily import Tavily
from knowgen.search.services.wikimedia import Wikimedia
from tests.helpers.guides import GUIDES, ROOT
from tests.helpers.processes import run_python
from tests.helpers.search_services import WikimediaServer

GUIDE = (GUIDES / "web_search.md").read_text(encoding="utf-8")
SERVICES: list[type[ServiceSearch]] = [Wikimedia, Searxng, Serper, Tavily, Brave]
BACKEND = """
from knowgen.search.services.wikimedia import Wikimedia

def wiki():
    return Wikimedia(base_url="{api}", images_url="{api}")
"""


def test_the_script_for_a_first_try_runs(tmp_path: Path) -> None:
    block = re.search(r"^```python\n# try_search\.py\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert block is not None
    title = "rose window Notre-Dame de Paris"
    with WikimediaServer({title: "A window.", "Notre-Dame de Paris": "A church."}, (f"{title}.jpg",)) as server:
        script = block[1].replace('load_search("wikimedia")', 'load_search("backend.py:wiki")')
        script = script.replace("https://en.wikipedia.org", server.address)
        (tmp_path / "backend.py").write_text(BACKEND.format(api=server.api))
        (tmp_path / "try_search.py").write_text(script)
        done = run_python("try_search.py", cwd=tmp_path, env={**os.environ, "KNOWGEN_CONTACT": "me@example.org"})
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == title and lines[-1] == "A church."
    assert any(line.endswith(".jpg") and Path(line).is_absolute() for line in lines)
    assert all("me@example.org" in call.headers["user-agent"] for call in server.calls)


def test_every_service_is_registered_under_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registered = project["entry-points"]["knowgen.search"]
    for service in SERVICES:
        target = registered[service.provider]
        assert registry.load(registry.resolve("search", target)) is service
        assert f"`{service.provider}" in GUIDE


def test_the_guide_names_every_argument_and_no_other() -> None:
    shared = {field.name for field in dataclasses.fields(SearchAccess)}
    table = GUIDE.partition("| argument | meaning |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)[1:])
    assert {name for cell in named for name in re.findall(r"`(\w+)`", cell)} == shared
    own = GUIDE.partition("| backend | further arguments |")[2].partition("\n\n")[0]
    for service in SERVICES:
        row = next(line for line in own.splitlines()[1:] if f"`{service.provider}`" in line.split("|")[1])
        arguments = {field.name for field in dataclasses.fields(service)} - shared - {"model"}
        assert all(f"`{argument}`" in row for argument in arguments), service


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("google.serper.dev", "| Serper | $0.001 a credit"),
        ("api.tavily.com", "| Tavily | $0.008 a credit"),
        ("api.search.brave.com", "| Brave | $0.005 a query"),
    ],
)
def test_the_prices_of_the_guide_are_those_of_the_list(host: str, words: str) -> None:
    prices = price_list(SEARCH_PRICES)
    price = prices["hosts"][host]["search"]["per_credit"]
    assert words in GUIDE and f"${price} " in words
    assert host in prices["notes"], "the list says where the price comes from"
    assert any(service.service_url == f"https://{host}" for service in SERVICES)


def test_the_doctor_knows_every_key() -> None:
    for service in SERVICES:
        if service.default_key:
            assert service.default_key in KEYS and service.default_key in GUIDE
    assert {"KNOWGEN_CONTACT", "JINA_API_KEY"} <= set(KEYS)
