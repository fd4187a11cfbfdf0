"""The server of the label page: who may ask, what is answered, and that nothing reveals the systems."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from knowgen.core.errors import ConfigError
from knowgen.labelling.items import make_plan
from knowgen.labelling.label_files import read_label_file
from knowgen.labelling.server import listen
from tests.helpers.labelling import LabelSite
from tests.helpers.report_pages import HOSTILE
from tests.labelling.conftest import SYSTEMS, Plans, make_runs

VALUES = {"faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": 0, "aesthetics": 1}


@pytest.fixture
def site(plans: Plans, tmp_path: Path) -> Iterator[LabelSite]:
    """Yield a page for ratings."""
    with LabelSite(plans(), tmp_path / "labels") as served:
        yield served


@pytest.fixture
def pairs(plans: Plans, tmp_path: Path) -> Iterator[LabelSite]:
    """Yield a page for pairs."""
    with LabelSite(plans("pairs"), tmp_path / "labels") as served:
        yield served


# -- who may ask -------------------------------------------------------------------------------------------------------


def test_the_server_listens_on_the_loopback_interface_alone(site: LabelSite) -> None:
    assert site.server.token in site.address
    assert site._socket.getsockname()[0] == "127.0.0.1"


def test_without_the_token_nothing_is_answered(site: LabelSite) -> None:
    for method, path in (("GET", "/"), ("GET", "/?token=wrong"), ("GET", "/static/label.js"), ("POST", "/api/next")):
        status, _, body = site.request(method, path, "{}" if method == "POST" else None, Cookie=None)
        assert status == 403, path
        assert b"token" in body
    status, _, _ = site.request("GET", "/static/label.js", Cookie=f"{site.server.cookie}=wrong")
    assert status == 403


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read(site: LabelSite) -> None:
    status, headers, _ = site.request("GET", f"/?token={site.server.token}", Cookie=None)
    assert status == 200
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]


def test_the_address_on_a_command_line_opens_the_page_once(site: LabelSite) -> None:
    address = site.server.browser_address(site.address)
    assert site.server.token not in address
    path = "/?" + address.split("?")[1]
    status, headers, _ = site.request("GET", path, Cookie=None)
    assert status == 200
    assert site.server.token in headers["Set-Cookie"]
    assert site.request("GET", path, Cookie=None)[0] == 403
    assert site.request("POST", "/api/next" + path[1:], "{}", Cookie=None)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_a_name_that_was_bound_to_this_machine_is_refused(site: LabelSite, host: str) -> None:
    assert site.request("GET", "/", Host=host)[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:9", "localhost"])
def test_the_local_end_of_a_tunnel_is_accepted(site: LabelSite, host: str) -> None:
    assert site.request("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_answers_of_other_sites_are_refused(site: LabelSite, headers: dict[str, str], status: int) -> None:
    assert site.request("POST", "/api/next", '{"rater": "ann"}', **headers)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/image/../run.json",
        "/image/%2e%2e%2frun.json",
        "/static/..%2f..%2f__init__.py",
        "/static/label.py",
        "/labels",
        "/image/",
    ],
)
def test_no_path_leads_to_a_file(site: LabelSite, path: str) -> None:
    status, _, body = site.request("GET", path)
    assert status == 404
    assert b"Traceback" not in body


def test_every_answer_has_the_headers_that_contain_hostile_content(site: LabelSite) -> None:
    for path in ("/", "/static/label.js", "/none"):
        _, headers, _ = site.request("GET", path)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"label: cannot listen on 127.0.0.1 port {port}: .*; give another --port"
        ):
            try:
                listen(port)
            except ConfigError as error:
                raise ConfigError(str(error)) from error


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"values": {"faithfulness": 1}}, "Rate every dimension"),
        ({"values": VALUES | {"aesthetics": 0.7}}, "aesthetics is not one of the scale"),
        ({"values": VALUES | {"aesthetics": True}}, "aesthetics is not one of the scale"),
        ({"values": VALUES | {"aesthetics": "1"}}, "aesthetics is not one of the scale"),
        ({"values": VALUES | {"aesthetics": None}}, "aesthetics is not one of the scale"),
        ({"values": VALUES | {"surplus": 1}}, "Rate every dimension"),
        ({"values": [1]}, "Rate every dimension"),
        ({"skipped": "bored"}, "reason is unknown"),
        ({"values": VALUES, "seconds": "long"}, "time is not a number"),
        ({}, "Rate every dimension"),
    ],
)
def test_wrong_answers_are_refused_and_not_stored(site: LabelSite, fields: dict[str, object], words: str) -> None:
    item = site.ask("next", rater="ann")["item"]
    while item["text_required"] is False:
        item = site.ask("label", rater="ann", item=item["id"], skipped="cannot_tell")["item"]
    done = site.ask("next", rater="ann")["done"]
    status, _, body = site.request("POST", "/api/label", json.dumps({"rater": "ann", "item": item["id"], **fields}))
    assert status == 400
    assert words in json.loads(body)["error"]
    assert site.ask("next", rater="ann")["done"] == done


@pytest.mark.parametrize(
    "body", ["", "[]", "nonsense", '{"rater": 1}', '{"rater": ""}', '{"rater": "' + "x" * 99 + '"}', "[" * 9000]
)
def test_a_body_without_a_request_is_refused(site: LabelSite, body: str) -> None:
    status, _, answer = site.request("POST", "/api/next", body, Content_Type="application/json")
    assert status == 400
    assert json.loads(answer)["error"]


def test_the_task_settles_whether_text_applies_as_for_a_judge(site: LabelSite) -> None:
    seen = set()
    item = site.ask("next", rater="ann")["item"]
    while item is not None:
        required = item["text_required"]
        seen.add(required)
        right = VALUES | {"text_accuracy": 1 if required else None}
        wrong = VALUES | {"text_accuracy": None if required else 1}
        sent = {"rater": "ann", "item": item["id"], "values": wrong}
        assert site.request("POST", "/api/label", json.dumps(sent))[0] == 400
        item = site.ask("label", rater="ann", item=item["id"], values=right)["item"]
    assert seen == {True, False}
    labels = read_label_file(site.server.folder / "ann.jsonl").labels
    assert {one.na for one in labels} == {(), ("text_accuracy",)}


def test_an_item_of_another_rater_or_an_earlier_server_is_refused(site: LabelSite) -> None:
    item = site.ask("next", rater="ann")["item"]["id"]
    for rater, name in (("bob", item), ("ann", "guess")):
        body = json.dumps({"rater": rater, "item": name, "skipped": "cannot_tell"})
        status, _, answer = site.request("POST", "/api/label", body)
        assert status == 409
        assert "Load the page again" in json.loads(answer)["error"]


def test_several_people_label_at_once_in_files_of_their_own(site: LabelSite) -> None:
    for rater in ("ann", "bob", "ann"):
        item = site.ask("next", rater=rater)["item"]
        site.ask("label", rater=rater, item=item["id"], skipped="cannot_tell", seconds=3)
    assert sorted(path.name for path in site.server.folder.iterdir()) == ["ann.jsonl", "bob.jsonl"]
    assert (site.ask("next", rater="ann")["done"], site.ask("next", rater="bob")["done"]) == (2, 1)


def test_a_named_rater_cannot_be_changed_on_the_page(plans: Plans, tmp_path: Path) -> None:
    with LabelSite(plans(), tmp_path, rater="ann") as site:
        item = site.ask("next", rater="bob")["item"]
        site.ask("label", rater="bob", item=item["id"], skipped="cannot_tell")
        assert [path.name for path in tmp_path.iterdir()] == ["ann.jsonl"]


def test_a_record_says_what_was_seen(pairs: LabelSite) -> None:
    item = pairs.ask("next", rater="ann")["item"]
    pairs.ask("label", rater="ann", item=item["id"], choice="right", seconds=4.25)
    (label,) = read_label_file(pairs.server.folder / "ann.jsonl").labels
    by_system = {
        one.system: one.sha256
        for of in pairs.server.plan.samples
        if of.sample.id == label.sample
        for one in of.images[0]
    }
    assert [by_system[name] for name in label.systems] == list(label.images)
    assert (label.choice, label.seconds, label.rater, label.repeat) == ("right", 4.25, "ann", 0)
    assert label.question == pairs.server.plan.question
    assert len(label.page) == 12


# -- blindness ---------------------------------------------------------------------------------------------------------


def test_nothing_that_is_sent_reveals_a_system(pairs: LabelSite) -> None:
    hidden = [*SYSTEMS, *(one.sha256 for of in pairs.server.plan.samples for one in of.images[0])]
    hidden += [str(one.path.parent) for of in pairs.server.plan.samples for one in of.images[0]]
    sent: list[str] = []

    def look(method: str, path: str, body: str | None = None) -> bytes:
        status, headers, data = pairs.request(method, path, body)
        assert status == 200
        sent.extend([path, json.dumps(headers), data.decode("utf-8", "replace")])
        return data

    look("GET", f"/?token={pairs.server.token}")
    state = json.loads(look("POST", "/api/next", '{"rater": "ann"}'))
    sizes, kinds = set(), set()
    while state["item"] is not None:
        for name in state["item"]["images"]:
            data = look("GET", f"/image/{name}")
            image = Image.open(io.BytesIO(data))
            sizes.add(max(image.size))
            kinds.add((image.format, *(name for name in image.info if not str(name).startswith("jfif"))))
        body = json.dumps({"rater": "ann", "item": state["item"]["id"], "choice": "tie"})
        state = json.loads(look("POST", "/api/label", body))
    look("POST", "/api/undo", '{"rater": "ann"}')
    assert not [word for word in hidden if any(word in text for text in sent)]
    assert sizes == {200}  # systems draw 96, 200 and 48 pixels wide
    assert kinds == {("JPEG",)}


def test_one_image_has_another_address_in_every_pair(pairs: LabelSite) -> None:
    addresses: list[str] = []
    item = pairs.ask("next", rater="ann")["item"]
    while item is not None:
        addresses += [*item["images"], item["truth"]]
        item = pairs.ask("label", rater="ann", item=item["id"], choice="tie")["item"]
    assert len(set(addresses)) == len(addresses) == 3 * 18


def test_an_image_that_does_not_open_says_why_on_the_terminal_alone(tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs", 1, SYSTEMS[:1])
    plan = make_plan(runs, "rate")
    (image,) = plan.samples[0].images[0]
    image.path.chmod(0o644)
    image.path.write_bytes(b"no image")
    with LabelSite(plan, tmp_path / "labels") as site:
        item = site.ask("next", rater="ann")["item"]
        for _ in range(2):
            status, _, body = site.request("GET", f"/image/{item['images'][0]}")
            assert (status, body) == (422, b"This image does not open.\n")
        assert site.warnings == [f"{image.path}: the image does not open: the file has changed since it was stored"]
        assert site.request("GET", f"/image/{item['truth']}")[0] == 200


def test_hostile_texts_reach_the_page_as_data(tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs", 1, (HOSTILE[0],))
    with LabelSite(make_plan(runs, "rate"), tmp_path / "labels") as site:
        _, headers, page = site.request("GET", "/")
        assert b"alert(1)" not in page
        status, headers, body = site.request("POST", "/api/next", json.dumps({"rater": '"><img src=x>'}))
        assert status == 200
        assert headers["Content-Type"].startswith("application/json")
        assert json.loads(body)["rater"] == '"><img src=x>'


def test_a_full_disk_is_an_answer_and_a_line(site: LabelSite) -> None:
    item = site.ask("next", rater="ann")["item"]
    site.server.folder.write_text("a file in place of the folder")
    body = json.dumps({"rater": "ann", "item": item["id"], "skipped": "cannot_tell"})
    status, _, answer = site.request("POST", "/api/label", body)
    assert status == 500
    assert "could not be stored" in json.loads(answer)["error"]
    assert "the label is not stored" in site.warnings[0]
