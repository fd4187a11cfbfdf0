"""Try to make calls cost more than the budget: 64 in flight, and usages that no service should report.

    python -m benchmarks.campaigns.budget [--rounds N] [--seed N]

Each round opens a run with a budget and asks a judge until the budget refuses. A server on this machine answers, and
counts what it bills, by its own count of tokens. What it reports is drawn from a grammar: whole numbers, nothing, null,
negative numbers, text, fractions, booleans, lists, objects in the place of numbers, numbers of thirty digits, a total
that disagrees. Some calls end without an answer. A round counts as

    kept       the server billed at most the budget, and the run says that at least as much was spent;
    exceeded   the server billed more than the budget;
    understated   the run says less than the server billed;
    crashed    a call raised another error than that of the budget.

In rounds of the kind `excess` the service bills more than the worst case that was reserved. Nothing can take back calls
that are in flight, so such a round is kept if no call was admitted after the first of them was settled.

Prints the number of each, and every round that is not kept. The exit code is 1 unless all are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.setting import LoopbackServer, Reply
from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.pricing import ChatPrice
from knowgen.clients.service_errors import Outcome
from knowgen.core.errors import BudgetReachedError
from knowgen.core.metering import current_meter
from knowgen.core.spec import GeneratorSpec, RunSpec, select
from knowgen.engine.budget import BudgetMeter
from knowgen.store.run import RunStore

IN_FLIGHT = 64
PRICE = ChatPrice(2.0, 8.0)
MAX_TOKENS = 1000
PROMPT = "x" * 2000
"""Its bytes bound its tokens in the reservation."""

OUTCOMES = ("kept", "exceeded", "understated", "crashed")
KINDS = ("whole", "odd", "lost", "excess")


@dataclass
class Bill:
    """What the server billed, in US dollars."""

    spent: float = 0.0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def odd_usage(draw: random.Random, prompt: int, written: int) -> Any:
    """Return a usage that does not say plainly how many tokens were used."""
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    whole = draw.choice([None, [], "many", 7, True, {}, {"usage": counts}, [counts], {"prompt_tokens": None}])
    if draw.random() < 0.2:
        return whole
    for name in draw.sample(sorted(counts), draw.randint(1, 3)):
        real = counts[name]
        odd = draw.choice(
            [None, -real, str(real), f"{real}.0", real + 0.5, float(real), True, False, [real], {"value": real}, "NaN",
             10**30, -(10**30), 1e300, "", "0", 0, "many"]
        )  # fmt: skip
        if name == "total_tokens" and odd in (0, "0"):
            odd = None
        if name != "total_tokens" and isinstance(odd, int) and not isinstance(odd, bool) and odd == 0:
            odd = "0"  # a plain 0 would be a plain count
        counts[name] = odd
    if draw.random() < 0.2:
        del counts[draw.choice(sorted(counts))]
    if _is_plain(counts):
        counts["completion_tokens"] = None
    return counts


def _is_plain(counts: dict[str, Any]) -> bool:
    return all(
        isinstance(counts.get(name), int) and not isinstance(counts.get(name), bool) and counts[name] >= 0
        for name in ("prompt_tokens", "completion_tokens")
    )


class CountingServer(LoopbackServer):
    """A server in the OpenAI chat format that bills every call by its own count of tokens.

    Args:
        kind: One of `KINDS`.
        seed: Seed of what it reports.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.bill, self._kind, self._draw = Bill(), kind, random.Random(seed)
        super().__init__(self._answer)

    def _answer(self, _: bytes) -> Reply | None:
        with self.bill.lock:
            prompt, written = self._draw.randint(100, 700), self._draw.randint(1, MAX_TOKENS)
            if self._kind == "excess":
                written *= self._draw.choice([1, 50])
            plain = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
            odd = self._kind in ("odd", "lost")
            usage = odd_usage(self._draw, prompt, written) if odd else plain
            self.bill.calls += 1
            self.bill.spent += (prompt * 2.0 + written * 8.0) / 1e6
            lost = self._kind == "lost" and self._draw.random() < 0.3
            wait = self._draw.random() * 0.02
        time.sleep(wait)
        choice = {"index": 0, "message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}
        body = json.dumps({"model": "judge", "choices": [choice], "usage": usage}).encode()
        return None if lost else (200, {}, body)


class WatchedMeter(BudgetMeter):
    """A budget meter that counts the calls it admits after one cost more than it had reserved.

    Attributes:
        late: Number of such calls.
    """

    def __init__(self, store: RunStore, budget: float) -> None:
        super().__init__(store, budget, lambda: None, patience=5.0)
        self.late = 0
        self._excess = False
        self._reserved: dict[int, float] = {}

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve, and count the call if an excess was settled before it asked."""
        after = self._excess
        number = await super().reserve(worst_case, caller)
        self.late += after
        self._reserved[number] = worst_case or 0.0
        return number

    async def settle(self, number: int, cost: float | None) -> None:
        """Settle, and see whether the call cost more than it had reserved."""
        await super().settle(number, cost)
        if cost is not None and cost > self._reserved[number] + 1e-9:
            self._excess = True


async def _spend(endpoint: ChatEndpoint, meter: BudgetMeter, until: float) -> list[str]:
    """Ask from 64 tasks until the budget refuses; return the errors of any other kind."""
    current_meter.set(meter)
    errors: list[str] = []

    async def asks(number: int) -> None:
        call = 0
        while time.monotonic() < until:
            call += 1
            messages = [{"role": "user", "content": f"{number} {call} {PROMPT}"}]
            try:
                response = await endpoint.ask(messages, "judge", attempt=call)
            except BudgetReachedError:
                return
            except Exception as error:  # noqa: BLE001 - any error is a result of the campaign
                errors.append(f"{type(error).__name__}: {error}")
                return
            if response.kind not in (Outcome.REPLY, Outcome.FAULT):
                errors.append(response.attempt.error)
        errors.append("the budget did not end the round in time")

    try:
        await asyncio.gather(*(asks(number) for number in range(IN_FLIGHT)))
    finally:
        await endpoint.close()
    return errors


def play(kind: str, seed: int, seconds: float = 60.0) -> tuple[str, str]:
    """Play one round.

    Returns:
        One of `OUTCOMES`, and what happened.
    """
    budget = random.Random(seed).choice([0.2, 0.5, 1.0])
    server = CountingServer(kind, seed)
    generator = GeneratorSpec(name="none")
    spec = RunSpec(task="budget", task_version="1", selection=select([], "all"), generator=generator, scorers=())
    try:
        with tempfile.TemporaryDirectory() as folder, RunStore.open(Path(folder) / "run", spec) as store:
            meter = WatchedMeter(store, budget)
            endpoint = ChatEndpoint(
                "judge", server.url, max_tokens=MAX_TOKENS, timeout=10.0, price=PRICE, use_cache=False
            )
            errors = asyncio.run(_spend(endpoint, meter, time.monotonic() + seconds))
            meter.close()
            recorded = store.spent()
    finally:
        server.close()
    bill = server.bill
    facts = f"{kind}, seed {seed}: {bill.calls} calls, ${bill.spent:.4f} billed, ${recorded:.4f} known of ${budget:g}"
    if errors:
        return "crashed", f"{facts}; {len(errors)} errors: {errors[0]}"
    if recorded < bill.spent - 1e-9:
        return "understated", facts
    if kind == "excess":
        return ("exceeded" if meter.late else "kept"), f"{facts}, {meter.late} calls admitted after an excess"
    return ("exceeded" if bill.spent > budget + 1e-9 else "kept"), facts


def main(rounds: int = 32, seed: int = 0) -> int:
    """Run the campaign and return the exit code.

    Args:
        rounds: Number of rounds; kinds take turns.
        seed: Seed of the first round.
    """
    counts: Counter[str] = Counter()
    for number in range(rounds):
        outcome, facts = play(KINDS[number % len(KINDS)], seed + number)
        counts[outcome] += 1
        if outcome != "kept":
            print(f"{outcome}: {facts}")
    print(f"{rounds} budgets: " + ", ".join(f"{counts[name]} {name}" for name in OUTCOMES))
    return 0 if counts["kept"] == rounds else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.rounds, arguments.seed))
