"""What the executor uses of Ray, in this process: actors whose methods run in threads, and which can be lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Anything that Ray itself raises."""


class RayTaskError(RayError):
    """An error of a method."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Method:
    """A method of an actor."""

    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def options(self, **options: Any) -> Method:
        return self

    def remote(self, *args: Any) -> Future[Any]:
        return self._actor.call(self._name, [each.result() if isinstance(each, Future) else each for each in args])


class Actor:
    """An object whose methods run in threads until it is lost."""

    def __init__(self, target: Any, options: dict[str, Any]) -> None:
        self.target, self.options = target, options
        self._lost = False
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def call(self, name: str, args: list[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._lost:
                future.set_exception(RayError("the actor is lost"))
                return future
            self._pending.add(future)
        threading.Thread(target=self._run, args=(future, name, args), daemon=True).start()
        return future

    def _run(self, future: Future[Any], name: str, args: list[Any]) -> None:
        try:
            result = getattr(self.target, name)(*args)
        except Exception as error:
            failed = RayTaskError(error)
            self._end(future, lambda: future.set_exception(failed))
        else:
            self._end(future, lambda: future.set_result(result))

    def _end(self, future: Future[Any], settle: Callable[[], None]) -> None:
        with self._lock:
            if future in self._pending:
                self._pending.discard(future)
                settle()

    def lose(self) -> None:
        """Lose it as with its node: nothing that it does is seen any more."""
        with self._lock:
            self._lost = True
            pending, self._pending = self._pending, set()
        for future in pending:
            future.set_exception(RayError("the actor is lost"))
        with contextlib.suppress(OSError):
            self.target.end()


class FakeRay:
    """Stands for the module.

    Args:
        nodes: Processors and GPUs of each node.

    Attributes:
        actors: All actors, in the order of their start.
        sent: Contents that were put into the object store.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *nodes: tuple[int, int]) -> None:
        self.resources = list(nodes)
        self.actors: list[Actor] = []
        self.sent: list[bytes] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in self.resources]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": sum(cpus for cpus, _ in self.resources), "GPU": sum(gpus for _, gpus in self.resources)}

    def remote(self, kind: type[Any]) -> Any:
        def options(**options: Any) -> Any:
            def start(*args: Any) -> Actor:
                self.actors.append(Actor(kind(*args), options))
                return self.actors[-1]

            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    def put(self, data: bytes) -> Future[bytes]:
        self.sent.append(data)
        future: Future[bytes] = Future()
        future.set_result(data)
        return future

    def get(self, future: Future[Any]) -> Any:
        return future.result()

    def wait(self, futures: list[Future[Any]], timeout: float) -> tuple[list[Future[Any]], list[Future[Any]]]:
        done, pending = wait_for(futures, timeout)
        return list(done), list(pending)

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        actor.lose()
