"""The process of one tracker: one JSON request per line on standard input, one JSON answer per line.

A tracker's library is imported here and nowhere else: what it does to logging, signals, threads and the exit of a
process does not concern the run, and it can be left behind when it hangs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from knowgen.core.errors import KnowgenError
from knowgen.core.text import error_summary
from knowgen.tracking.contract import TrackedImage, TrackedRun, Tracker
from knowgen.tracking.requests import TRACKERS


def main(arguments: list[str]) -> None:
    """Serve one tracker until it is closed, fails, or standard input ends.

    Args:
        arguments: Name of the tracker, and its target.
    """
    requests, answers = _own_streams()
    try:
        module, _, name = TRACKERS[arguments[0]].partition(":")
        tracker: Tracker = getattr(importlib.import_module(module), name)(arguments[1])
        tracker.check()
        _answer(answers, {"ready": True})
        for line in requests:
            request = json.loads(line)
            answer = _done(tracker, request)
            if answer:
                _answer(answers, answer)
            if request["do"] == "close":
                return
        tracker.close("failed")  # the run was killed
    except KnowgenError as error:
        failed = {"what": error.what, "where": error.where, "fix": error.fix, "code": error.exit_code}
        _answer(answers, {"failed": failed})
    except BaseException as error:  # noqa: BLE001 - a library may raise anything, and the run gets one line
        _answer(answers, {"failed": {"what": error_summary(error), "where": "", "fix": "", "code": 1}})
    finally:
        answers.flush()
        os._exit(0)  # threads and exit hooks of the library could wait for a server that does not answer


def _own_streams() -> tuple[IO[str], IO[str]]:
    """Return the streams of the requests and answers; what a library reads and prints goes elsewhere."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # a library without a terminal does not ask for a password
    os.dup2(nothing, 1)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    return requests, answers


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _done(tracker: Tracker, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request and return the answer, if it has one."""
    match request["do"]:
        case "start":
            return {"started": dict(tracker.start(TrackedRun(**request["run"])))}
        case "log":
            tracker.log(request["values"], request["step"])
        case "figures":
            tracker.figures(request["values"])
        case "files":
            tracker.files([Path(path) for path in request["paths"]])
        case "images":
            tracker.images([TrackedImage(**image) for image in request["images"]])
        case "close":
            tracker.close(request["ending"])
            return {"closed": True}
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
