"""Modules that misbehave when they are imported; `plugins.py` writes each into a file and runs it as a generator.

Each module first leaves a witness, does one thing wrong, and then defines `Plugin`, a generator that works. Some are
run as a scorer, a task or a search backend instead.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Role = Literal["generator", "scorer", "task", "search"]

WITNESS = """
import os
from pathlib import Path

Path(os.environ["KNOWGEN_CAMPAIGN_WITNESS"]).touch()
"""

PLUGINS: dict[Role, str] = {
    "generator": """
from PIL import Image


class Plugin:
    def draw(self, prompt, references, seed):
        return Image.new("RGB", (32, 32), (seed, 2, 3))
""",
    "scorer": """
def Plugin(prompt, image):
    return 0.5
""",
    "task": """
from knowgen.plugin import GroundTruth, InMemoryTask, Sample


def Plugin():
    names = ("red", "green", "blue", "grey", "pink", "teal")
    samples = [Sample(id=name, prompt=f"Plain {name}.", category="art", text_required=False) for name in names]
    return InMemoryTask("plain", samples, [GroundTruth(sample_id=name) for name in names])
""",
    "search": """
class Plugin:
    version = "1"

    async def search(self, query, limit=5):
        return []

    async def image_search(self, query, limit=5):
        return []

    async def open(self, address):
        return None
""",
}
"""What works once the module has been imported, by the role in which it is run."""


class HostileImport(NamedTuple):
    """A module that misbehaves when it is imported.

    Attributes:
        code: What it does wrong.
        ends: Whether the run cannot go on, and must end with a reason; otherwise all samples must be ok. (A task cannot
            be made without `json`.)
        role: What it is run as.
    """

    code: str
    ends: bool
    role: Role = "generator"


CRASH = "import ctypes\nctypes.string_at(0)\n"
HOLD = "import ctypes\nctypes.PyDLL(None).sleep(3 * 3600)\n"
REPLACE = """
import sys, types
import json
json.dumps = json.loads = None
sys.modules["json"] = types.ModuleType("json")
"""

IMPORTS: dict[str, HostileImport] = {
    "ImportCrashes": HostileImport(CRASH, ends=True),
    "ImportAborts": HostileImport("os.abort()\n", ends=True),
    "ImportExits": HostileImport("os._exit(7)\n", ends=True),
    "ImportExitsInThread": HostileImport(
        "import threading, time\nthreading.Thread(target=lambda: os._exit(7)).start()\ntime.sleep(3600)\n", ends=True
    ),
    "ImportKillsItself": HostileImport("os.kill(os.getpid(), 9)\n", ends=True),
    "ImportKillsItsGroup": HostileImport("os.killpg(0, 15)\n", ends=True),
    "ImportHangs": HostileImport("import time\ntime.sleep(3 * 3600)\n", ends=True),
    "ImportHoldsTheInterpreter": HostileImport(HOLD, ends=True),
    "ImportMatchesForEver": HostileImport('import re\nre.match(r"(a+)+$", "a" * 60 + "b")\n', ends=True),
    "ImportReplacesJson": HostileImport(REPLACE, ends=False),
    "ImportReplacesKnowgen": HostileImport(
        "import knowgen.store.run\nknowgen.store.run.RunStore = None\nimport sys\nsys.modules['sqlite3'] = None\n",
        ends=False,
    ),
    "ImportPatchesBuiltins": HostileImport("import builtins\nbuiltins.open = builtins.print = None\n", ends=False),
    "ImportPatchesTime": HostileImport("import time\ntime.monotonic = time.time = lambda: float('nan')\n", ends=False),
    "ImportClearsEnvironment": HostileImport("os.environ.clear()\nos.chdir('/')\n", ends=False),
    "ImportSetsSignals": HostileImport(
        "import signal\nfor each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, signal.SIG_IGN)\n", ends=False
    ),
    "ImportClosesStreams": HostileImport("os.closerange(0, 3)\n", ends=False),
    "ImportForks": HostileImport(
        "if os.fork() == 0:\n    import time\n    time.sleep(3 * 3600)\n    os._exit(0)\n", ends=False
    ),
    "ImportPrints": HostileImport("print('x' * 10_000_000)\n", ends=False),
    "ScorerImportCrashes": HostileImport(CRASH, ends=True, role="scorer"),
    "ScorerImportReplacesJson": HostileImport(REPLACE, ends=False, role="scorer"),
    "TaskImportCrashes": HostileImport(CRASH, ends=True, role="task"),
    "TaskImportReplacesJson": HostileImport(REPLACE, ends=True, role="task"),
    "TaskImportPatchesBuiltins": HostileImport(
        "import builtins, time\nbuiltins.print = None\ntime.time = lambda: 0\n", ends=False, role="task"
    ),
    "TaskImportHoldsTheInterpreter": HostileImport(HOLD, ends=True, role="task"),
    "SearchImportCrashes": HostileImport(CRASH, ends=True, role="search"),
    "SearchImportReplacesJson": HostileImport(REPLACE, ends=False, role="search"),
}


def source(name: str) -> str:
    """Return the text of a module."""
    hostile = IMPORTS[name]
    return WITNESS + hostile.code + PLUGINS[hostile.role]
