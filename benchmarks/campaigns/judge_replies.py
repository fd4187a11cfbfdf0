"""Reply a judge's calls with faults: is one ever taken for a number, lost without a reason, or waited for for ever?

    python -m benchmarks.campaigns.judge_replies [--count N] [--seed N]

Each answer is drawn from a grammar of what services send: shapes of the chat format, finish reasons, refusals, errors
in and beside the reply, reasoning in tags and in fields, broken, cut, doubled and nested JSON, values off the grid, web
pages, bodies that are not JSON. A server on this machine sends it to the judge `vlm`, which scores one sample. It
counts as

    number     a value was read, strictly, from an answer that the grammar made faulty;
    silent     no value was read, and no reason is given;
    hung       the score took longer than its deadline;
    crashed    an error other than that of a service or an account was raised;
    held       none of these.

The lenient reading is compared with an evaluator that is written down here in another way: where both read a value they
must agree, and neither may read one where the other does not; otherwise the answer counts as `number` too. Prints the
number of each, and the first answers that are not held. The exit code is 1 unless all are held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.setting import LoopbackServer, Reply
from knowgen.core.errors import AccountError, TransientError
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Sample, Score, ScoreStatus, image_ref
from knowgen.scorers.vlm.judge import VlmJudge

IN_FLIGHT = 32
DEADLINE = 60.0
"""Seconds within which a score must end; a call ends within 5 seconds here."""

OUTCOMES = ("number", "silent", "hung", "crashed", "held")
GRID = ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics")
GOOD = {"rationale": "All there.", **dict.fromkeys(GRID, 1), "text_accuracy_na": False}

# ------------------------------------------------------------------------------------------------- texts of a reply


def _off_grid(draw: random.Random) -> str:
    """Return an object with a value that the contract does not allow, a key that is missing, or a wrong flag."""
    reply: dict[str, Any] = dict(GOOD)
    name = draw.choice([*GRID, "rationale", "text_accuracy_na"])
    bad: list[Any] = [0.7, 2, -1, "1", "0.5", True, None, [], {}, [1], {"value": 1}, "high", "", 1e308, "N/A", 0.25]
    if name == "rationale":
        reply[name] = draw.choice([None, 3, [], {}])
    elif name == "text_accuracy_na":
        reply[name] = draw.choice(["true", "false", 1, 0, None, [], "yes"])
    elif draw.random() < 0.2:
        del reply[name]
    else:
        reply[name] = draw.choice(bad)
    return json.dumps(reply)


def _not_json(draw: random.Random) -> str:
    text = json.dumps(GOOD)
    return draw.choice(
        [
            "", " \n ", "I cannot judge this.", text[: draw.randint(1, len(text) - 1)], text.replace('"', "'"),
            text.replace(": 1", ": NaN"), text.replace("}", ",}"), text + text, f"{text}\n{text}", f"[{text}]", "null",
            "[]", '"1"', "1", "true", "{" * draw.randint(1, 3000), '{"a":' * draw.randint(1, 3000), f"Sure: {text}",
            f"{text} Anything else?", text.replace('"aesthetics": 1', '"aesthetics": 1, "aesthetics": 0'),
            "\x00", "\ud800",
            f'{{"judgement": {text}}}', f"```json\n{text}", f"```\n{text}\n```\n```\n{text}\n```", "{}", "{,}",
            text.replace("1", "9" * 5000, 1), f"Score {{4}}:\n```json\n{text}\n```", f"{text}```", "```json\n```",
        ]
    )  # fmt: skip


def _thought(draw: random.Random) -> str:
    """Return reasoning that holds a good object, and an answer that is none, or no answer."""
    good, bad = json.dumps(GOOD), draw.choice([_off_grid, _not_json])(draw)
    if bad.strip().startswith(("```", "{")) and _means(bad):
        bad = "no answer"
    return draw.choice(
        [
            f"<think>{good}", f"<think>{good}</think>", f"<think>{good}</think>{bad}",
            f"<thinking>{good}</thinking>{bad}",
            f"<|channel|>analysis<|message|>{good}<|end|>", f"<|channel|>analysis<|message|>{good}", f"[THINK]{good}",
            f"<think>{good}</think><think>{good}", f"<think>a</think>{good}{good}", f"<think>{good}</thinking>",
        ]
    )  # fmt: skip


def _means(text: str) -> bool:
    """Return whether a text is a good answer after all."""
    body = re.sub(r"\A```\w*|```\Z", "", text.strip()).strip()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(value.get(name) in (0, 0.5, 1) for name in GRID)


TEXTS: tuple[Callable[[random.Random], str], ...] = (_off_grid, _not_json, _thought)


# -------------------------------------------------------------------------------------------------- shapes of an answer


def _usage(draw: random.Random) -> Any:
    plain = {"prompt_tokens": 900, "completion_tokens": 80, "total_tokens": 980}
    return draw.choice([plain, plain, plain, None, {}, [], "many", {"prompt_tokens": None}, {"completion_tokens": -1}])


def _chat(draw: random.Random, message: Any, finish: Any = "stop", **choice: Any) -> Reply:
    body = {
        "id": "chatcmpl-1",
        "model": draw.choice(["judge-2026", None, 7, "m" * 3000]),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}],
        "usage": _usage(draw),
    }
    return 200, {}, json.dumps(body).encode()


def _faulty_text(draw: random.Random) -> Reply:
    text = draw.choice(TEXTS)(draw)
    content: Any = text
    if draw.random() < 0.2:
        content = [{"type": "text", "text": text}]
    message = {"role": "assistant", "content": content}
    if draw.random() < 0.1:
        message["reasoning_content"] = json.dumps(GOOD) if text.strip() else "only thoughts"
    return _chat(draw, message, draw.choice(["stop", "stop", "length", "", None, "eos", "tool_calls"]))


def _refused(draw: random.Random) -> Reply:
    good = json.dumps(GOOD)
    finish = draw.choice(
        ["content_filter", "SAFETY", "PROHIBITED_CONTENT", "content_filter: PROHIBITED_CONTENT", "refusal",
         "IMAGE_SAFETY", "RECITATION", "guardrail_intervened", "BLOCKLIST"]
    )  # fmt: skip
    shapes = [
        _chat(draw, {"role": "assistant", "content": draw.choice([good, "", None])}, finish),
        _chat(draw, {"role": "assistant", "content": draw.choice([good, None]), "refusal": "I will not."}),
        _chat(draw, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}, {"text": good}]}),
    ]
    return draw.choice(shapes)


def _error_inside(draw: random.Random) -> Reply:
    message = {"role": "assistant", "content": draw.choice([json.dumps(GOOD), "", None])}
    error = draw.choice(
        [{"code": 502, "message": "Provider down"}, {"code": 429, "message": "busy"}, {"message": "oops"}, "oops",
         {"code": "rate_limit_exceeded"}, {"code": 402, "message": "Insufficient credits"}, ["oops"], 1]
    )  # fmt: skip
    return draw.choice(
        [
            _chat(draw, message, "error"),
            _chat(draw, message, "stop", error=error),
            _chat(draw, {**message, "error": error}),
            (200, {}, json.dumps({"error": error}).encode()),
            (200, {}, json.dumps({"error": error, "choices": []}).encode()),
        ]
    )


def _odd_shape(draw: random.Random) -> Reply:
    good = json.dumps(GOOD)
    body: Any = draw.choice(
        [
            {}, [], None, 7, "text", {"choices": None}, {"choices": []}, {"choices": [None]}, {"choices": [[]]},
            {"choices": {}}, {"choices": [{"message": None}]}, {"choices": [{"message": good}]},
            {"choices": [{"text": good}]},
            {"choices": [{"delta": {"content": good}}]}, {"choices": [{"message": {"content": {"text": good}}}]},
            {"choices": [{"message": {"content": 1}}]}, {"choices": [{"message": {"content": [None, 7, []]}}]},
            {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": good}}]}}]},
            {"output": [{"content": [{"type": "output_text", "text": good}]}]}, {"message": {"content": good}},
            {"choices": [{"message": {"content": [{"type": "thinking", "text": good}]}, "finish_reason": "stop"}]},
        ]
    )  # fmt: skip
    return 200, {}, json.dumps(body).encode()


def _raw(draw: random.Random) -> Reply:
    good = _chat(draw, {"role": "assistant", "content": json.dumps(GOOD)})[2]
    body = draw.choice(
        [
            b"", b" ", b"\xff\xfe", b"<html><body>gateway</body></html>", b"<!DOCTYPE html><p>", good[: len(good) // 2],
            b"data: " + good + b"\n\ndata: [DONE]\n\n", b"[" * 5000, b"{" + b'"a":{' * 3000, b"nul", good + good,
            b"\x00" + good,
            b"1" * 5000, b'{"choices": ' + b"[" * 50_000,
        ]
    )  # fmt: skip
    headers = draw.choice([{}, {"Content-Type": "text/html"}, {"Content-Encoding": "br"}, {"Content-Encoding": "gzip"}])
    return 200, headers, body


def _status(draw: random.Random) -> Reply:
    status = draw.choice([*range(300, 309), *range(400, 430), 431, 451, *range(500, 512), 520, 524, 529, 530])
    good = _chat(draw, {"role": "assistant", "content": json.dumps(GOOD)})[2]
    error = {"message": draw.choice(["oops", "", "max_tokens", "image too large", "context length"]), "code": None}
    body = draw.choice(
        [b"", good, b"<html>no</html>", json.dumps({"error": error}).encode(), b'{"detail": []}', b"[]", b"7"]
    )
    return status, draw.choice([{}, {"Retry-After": "0"}, {"Retry-After": "soon"}, {"Location": "/v1"}]), body


SHAPES: tuple[tuple[Callable[[random.Random], Reply], int], ...] = (
    (_faulty_text, 10), (_refused, 3), (_error_inside, 3), (_odd_shape, 3), (_raw, 2), (_status, 4),
)  # fmt: skip


def faulty_answer(seed: int) -> Reply:
    """Return the faulty answer of a seed."""
    draw = random.Random(seed)
    shape = draw.choices([each for each, _ in SHAPES], [weight for _, weight in SHAPES])[0]
    return shape(draw)


# ------------------------------------------------------------------------------------- the official reading, once more


def official(text: str) -> dict[str, float | None] | str | None:
    """Read a reply as the published evaluator is described to.

    Returns:
        Values by dimension, None for one that is N/A; `failed` where it fails the sample; None where it asks again.
    """
    first, last = text.find("{"), text.rfind("}")
    if first < 0 or last < first:
        return None
    found: Any = None
    for candidate in (text[first : last + 1], re.sub(r",\s*([}\]])", r"\1", text[first : last + 1])):
        try:
            found = json.loads(candidate)
            break
        except (ValueError, RecursionError):
            continue
    if not isinstance(found, dict):
        return None
    values: dict[str, float | None] = {}
    flag = found.get("text_accuracy_na")
    for name in GRID:
        try:
            number = float(found.get(name, 0))
        except (TypeError, ValueError, OverflowError) as error:
            if name != "text_accuracy" or isinstance(error, OverflowError):
                return "failed"
            values[name] = None
            continue
        values[name] = 1.0 if number != number else round(max(0.0, min(1.0, number)), 2)
    if flag is True or flag in ("true", "True") or (isinstance(flag, int | float) and flag == 1):
        values["text_accuracy"] = None
    return values


# ------------------------------------------------------------------------------------------------------- the campaign


def _asked(body: bytes) -> Reply:
    """Return the answer of the seed that a call names in its prompt, again and again."""
    found = re.search(rb"seed-(\d+)-", body)
    return faulty_answer(int(found[1]) if found else 0)


def _verdict(score: Score) -> tuple[str, str]:
    """Return the outcome of a score, and what happened."""
    if score.strict.status is ScoreStatus.OK:
        return "number", f"read {score.strict.values} {score.strict.read_from}"
    lenient = score.lenient
    if not score.strict.reason or lenient is None or (lenient.status is not ScoreStatus.OK and not lenient.reason):
        return "silent", repr(score.strict)
    usable = [attempt.reply for attempt in score.attempts if not attempt.refused]
    readings = [reading for reply in usable if (reading := official(reply)) is not None]
    expected = readings[0] if readings else None
    if not isinstance(expected, dict):
        agrees = lenient.status is ScoreStatus.FAILED
    else:
        known = {name: value for name, value in expected.items() if value is not None}
        agrees = lenient.status is ScoreStatus.OK and lenient.values == known
    return ("held", "") if agrees else ("number", f"the lenient reading is {lenient}, the official one {expected}")


async def _campaign(count: int, seed: int, url: str, folder: Path) -> Counter[str]:
    from PIL import Image

    path = folder / "image.png"
    Image.new("RGB", (32, 24), "red").save(path)
    image = image_ref(path)
    counts: Counter[str] = Counter()
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        judge = judges[number % len(judges)]
        sample = Sample(id=str(number), prompt=f"seed-{number}- A red boat")
        generation = Generation(sample_id=str(number), status=GenerationStatus.OK, image=image)
        async with turns:
            try:
                async with asyncio.timeout(DEADLINE):
                    score = await judge.score(sample, GroundTruth(sample_id=str(number), image=image), generation)
                outcome, what = _verdict(score)
            except TimeoutError:
                outcome, what = "hung", f"no end within {DEADLINE:g} s"
            except (TransientError, AccountError) as error:
                outcome, what = ("held", "") if str(error).strip() else ("silent", repr(error))
            except Exception as error:  # noqa: BLE001 - any other error is a result of the campaign
                outcome, what = "crashed", f"{type(error).__name__}: {error}"
        counts[outcome] += 1
        if outcome != "held" and counts.total() - counts["held"] <= 10:
            print(f"{outcome}: seed {number}: {what[:300]}; answer {faulty_answer(number)[2][:300]!r}")

    # the pauses of rate control after simulated server errors are not what is tried here, so many judges share the work
    judges = [
        VlmJudge(f"judge-{number}", base_url=url, timeout=5.0, cache=False, attempts=2, schema="off")
        for number in range(max(1, min(256, count // 8)))
    ]
    try:
        await asyncio.gather(*(one(number) for number in range(seed, seed + count)))
    finally:
        for judge in judges:
            await judge.close()
    return counts


def main(count: int = 10_000, seed: int = 0) -> int:
    """Run the campaign and return the exit code.

    Args:
        count: Number of answers.
        seed: Seed of the first one.
    """
    with LoopbackServer(_asked) as server, tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(_campaign(count, seed, server.url, Path(folder)))
    print(f"{count} faulty answers: " + ", ".join(f"{counts[name]} {name}" for name in OUTCOMES))
    return 0 if counts["held"] == count else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.count, arguments.seed))
