"""`knowgen agent`: steps live, images where the terminal shows them, a page at the end, and one line for errors."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from knowgen.cli.agent_view import AgentView
from knowgen.cli.main import run
from knowgen.cli.terminal_images import CHUNK, image_method, shown_images
from knowgen.tasks.load import load_task
from tests.helpers.judge_server import JudgeServer, Step
from tests.helpers.processes import PATIENCE, python_environment, start_python, wait_until
from tests.helpers.search_agents import answer, call
from tests.helpers.search_services import WikimediaServer

ROOT = Path(__file__).resolve().parents[2]
SEARCH = f"world:{ROOT / 'tasks' / 'knowgen_mini' / 'search'}"
SCRIPTED = ("--policy", "scripted", "--search", SEARCH)
PROMPT = next(load_task("knowgen_mini").samples()).prompt
COLOURS = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder, without settings of the terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLORTERM", "NO_COLOR", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "KNOWGEN_CONTACT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def line_of(output: str, label: str) -> str:
    """Return what follows a label at the beginning of a line."""
    found = re.search(rf"^{label} +(.*)$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


def test_steps_answer_image_and_page_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", PROMPT, *SCRIPTED, "--painter", "painter"]) == 0
    output = capsys.readouterr()
    assert output.err == "" and "\x1b" not in output.out
    for label in ("prompt", "round 1", "thinks", "calls", "found", "sees", "answer", "reference", "policy", "search"):
        assert line_of(output.out, label)
    assert output.out.index("round 1") < output.out.index("round 2") < output.out.index("\nanswer")
    with Image.open(line_of(output.out, "image")) as image:
        assert image.size == (768, 512)
    page = Path(line_of(output.out, "page")).read_text(encoding="utf-8")
    assert "data:image/webp;base64," in page and "Round 1" in page and "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|https://)', page), "it loads nothing"


def test_the_same_command_shows_the_stored_answer_and_fresh_searches_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["agent", PROMPT, *SCRIPTED, "--out", "out"]
    assert run(words) == 0
    first = capsys.readouterr().out
    assert run(words) == 0
    again = capsys.readouterr().out
    assert "--fresh searches again" in line_of(again, "stored")
    assert re.findall("^(?:round|thinks|calls|sees).*", again, re.M) == re.findall(
        "^(?:round|thinks|calls|sees).*", first, re.M
    )
    assert run([*words, "--fresh"]) == 0
    assert "\nstored" not in capsys.readouterr().out


def test_json_is_one_document_with_the_whole_trajectory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", PROMPT, *SCRIPTED, "--painter", "painter", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"]["ending"] == "answer" and result["answer"]["trajectory"][0]["round"] == 1
    assert Path(result["image"]).is_file() and Path(result["page"]).is_file()
    assert (result["cost"], result["stopped"], result["painter"]["name"]) == (0.0, "", "painter")


def test_without_an_image_model_there_is_an_answer_and_no_image(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", PROMPT, *SCRIPTED, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"]["prompt"] and (result["image"], result["generation"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((" ", *SCRIPTED), 2, "the prompt is empty"),
        (("x", "--search", SEARCH), 2, "Missing option '--policy'"),
        (("x", "--policy", "nope"), 2, "unknown policy 'nope'"),
        (("x", "--policy", "scripted", "--search", "nope"), 2, "unknown search backend 'nope'"),
        (("x", *SCRIPTED, "--painter", "nope"), 2, "unknown generator 'nope'"),
        (("x", *SCRIPTED, "-g", "policy=other"), 2, "write --policy other"),
        (("x", *SCRIPTED, "-g", "nope=1"), 2, "unknown argument 'nope'"),
    ],
)
def test_errors_are_one_line(
    folder: Path, words: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", *words]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_chat_model_searches_wikimedia(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replies = [call("search", {"queries": ["Mont Blanc"]}, "I look it up."), answer("Mont Blanc at dawn.")]
    with WikimediaServer() as wiki, JudgeServer([Step(reply=reply) for reply in replies]) as chat:
        words = ["--policy", "openai:any", "-g", f"policy.base_url={chat.url}", "-g", "policy.price_call=0.001"]
        words += ["-g", "search.contact=me@example.org", "-g", "search.rpm=6000"]
        words += ["-g", f"search.base_url={wiki.api}", "-g", f"search.images_url={wiki.api}"]
        assert run(["agent", "A mountain", *words, "--budget", "1", "--out", "out"]) == 0
        output = capsys.readouterr()
        assert len(chat.calls) == 2 and wiki.calls
    assert line_of(output.out, "answer") == "Mont Blanc at dawn."
    assert "$0.0020" in line_of(output.out, "together") and "0.0020" in line_of(output.out, "policy")


def test_wikimedia_without_an_address_is_noted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent", "x", "--policy", "replay:missing.jsonl"]
    assert run(words) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert "export KNOWGEN_CONTACT=" in first and "missing.jsonl" in second
    assert run([*words, "-g", "search.contact=me@example.org"]) == 3
    assert "KNOWGEN_CONTACT" not in capsys.readouterr().err


def test_a_budget_that_is_used_up_ends_with_its_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JudgeServer([Step(reply=call("search", {"queries": ["x"]}))]) as chat:
        words = ["--policy", "openai:any", "-g", f"policy.base_url={chat.url}", "-g", "policy.price_call=1"]
        assert run(["agent", "A mountain", *words, "--search", SEARCH, "--budget", "1.5"]) == 5
    output = capsys.readouterr()
    assert "raise --budget" in output.err and line_of(output.out, "resume")
    assert len(chat.calls) == 1


def test_a_reply_cannot_control_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    with JudgeServer([Step(reply=f"<think>{evil}</think>" + answer(f"{evil} boat"))]) as chat:
        words = ["--policy", "openai:any", "-g", f"policy.base_url={chat.url}", "--search", SEARCH]
        assert run(["agent", f"Draw {evil}", *words]) == 0
    output = capsys.readouterr()
    assert not set(output.out + output.err) & {"\x1b", "\x07", "\u202e"} and "\\u001b" in output.out


def test_what_comes_from_outside_is_escaped_on_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with JudgeServer([Step(reply=f"<think>{evil}</think>" + answer(evil))]) as chat:
        words = ["--policy", "openai:any", "-g", f"policy.base_url={chat.url}", "--search", SEARCH]
        assert run(["agent", evil, *words]) == 0
    page = Path(line_of(capsys.readouterr().out, "page")).read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and page.count("&lt;script&gt;") >= 3


def test_ctrl_c_ends_in_order_and_the_command_goes_on(tmp_path: Path) -> None:
    with JudgeServer(lambda asked: Step(reply=answer(), delay=120.0)) as chat:
        words = ("--policy", "openai:any", "-g", f"policy.base_url={chat.url}", "--search", SEARCH, "--out", "out")
        process = start_python("-m", "knowgen", "agent", "A boat", *words, cwd=tmp_path)
        try:
            wait_until(lambda: chat.calls, process)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130 and error == "interrupted; finished results are saved\n"
    assert "knowgen agent 'A boat'" in line_of(out, "resume")


def test_a_reader_that_closes_the_output_ends_nothing(tmp_path: Path) -> None:
    line = " ".join(["-m", "knowgen", "agent", "'A boat'", *SCRIPTED, "--out", "out"])
    command = f"set -o pipefail; {sys.executable} {line} | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=python_environment(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert (tmp_path / "out" / "agent.html").is_file()


PAINTER = """
from PIL import Image

from knowgen.plugin import GeneratedImage


class Service:
    revision, references = "1", True

    async def generate(self, request):
        return GeneratedImage(image=Image.new("RGB", (64, 64), "red"))
"""


def test_the_unknown_price_of_an_image_service_is_not_shown_as_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "service.py").write_text(PAINTER)
    assert run(["agent", PROMPT, *SCRIPTED, "--painter", "service.py:Service"]) == 0
    assert line_of(capsys.readouterr().out, "painter").endswith("price unknown")


# -- terminals ---------------------------------------------------------------------------------------------------------


def in_terminal(words: list[str], folder: Path, **environment: str) -> str:
    """Run the program in a pseudo-terminal and return everything it wrote there."""
    main, other = pty.openpty()
    for name in ("COLORTERM", "NO_COLOR", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "LC_TERMINAL"):
        environment.setdefault(name, "")
    process = subprocess.Popen(
        [sys.executable, "-m", "knowgen", *words],
        stdin=other, stdout=other, stderr=other, cwd=folder, env=python_environment(**environment),
    )  # fmt: skip
    os.close(other)
    written = b""
    try:
        while select.select([main], [], [], PATIENCE)[0]:
            try:
                data = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            written += data
        assert process.wait(PATIENCE) == 0, written.decode(errors="replace")
    finally:
        process.kill()
        os.close(main)
    return written.decode("utf-8")


def test_a_terminal_with_colours_shows_images_as_blocks(tmp_path: Path) -> None:
    words = ["agent", PROMPT, *SCRIPTED, "--painter", "painter", "--out", "out"]
    shown = in_terminal(words, tmp_path, **COLOURS)
    assert shown.count("\u2580") > 1000 and "\x1b[38;2;" in shown and "\x1b_G" not in shown
    assert set(re.findall(r"\x1b(.)", shown)) == {"["}, "only colours"
    plain = in_terminal([*words, "--fresh"], tmp_path, **COLOURS, NO_COLOR="1")
    assert "\x1b" not in plain and "\u2580" not in plain and "round 1" in plain


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, ""),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, ""),
    ],
)
def test_the_environment_says_how_a_terminal_shows_images(environment: dict[str, str], method: str) -> None:
    assert image_method(environment, terminal=True) == method
    assert image_method(environment, terminal=False) == ""


def picture(folder: Path, size: tuple[int, int]) -> Path:
    path = folder / f"{size[0]}x{size[1]}.png"
    Image.effect_noise(size, 90).convert("RGB").save(path)
    return path


def test_kitty_gets_a_png_in_chunks(tmp_path: Path) -> None:
    shown = shown_images([picture(tmp_path, (640, 480))], "kitty", columns=80, rows=12)
    parts = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", shown)
    assert len(parts) > 2 and all(len(data) <= CHUNK for _, data in parts)
    assert parts[0][0] == "a=T,f=100,q=2,c=32,r=12,m=1" and parts[-1][0] == "q=2,m=0"
    assert {keys for keys, _ in parts[1:-1]} == {"q=2,m=1"}
    with Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts)))) as image:
        assert image.format == "PNG" and image.size == (320, 240)


def test_iterm_gets_a_png_with_its_size(tmp_path: Path) -> None:
    shown = shown_images([picture(tmp_path, (300, 100))], "iterm", columns=30, rows=12)
    found = re.fullmatch("\x1b]1337;File=inline=1;size=(\\d+);width=30;height=(\\d+);[^:]*:([^\x07]*)\x07\n", shown)
    assert found is not None and found[2] == "5"
    assert len(base64.b64decode(found[3])) == int(found[1])


def test_blocks_have_two_pixels_in_a_cell_and_stand_side_by_side(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 2))
    image.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)])
    image.save(tmp_path / "four.png")
    shown = shown_images([tmp_path / "four.png"] * 2, "blocks", columns=20, rows=1)
    cell = "\x1b[38;2;255;0;0;48;2;0;0;255m\u2580\x1b[38;2;0;255;0;48;2;9;8;7m\u2580\x1b[0m"
    assert shown == f"{cell} {cell}\n"
    assert shown_images([tmp_path / "four.png"] * 2, "blocks", columns=4, rows=1) == f"{cell}\n{cell}\n"


def test_an_image_that_does_not_open_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    (tmp_path / "broken.png").write_bytes(b"no image")
    AgentView(COLOURS).pictures([tmp_path / "broken.png"], 4)
    assert "an image cannot be shown" in stream.getvalue()
