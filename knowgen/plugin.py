"""All that an author of a generator, scorer, task, search backend or tool imports: `from knowgen.plugin import …`.

| you write | you may need |
|---|---|
| a generator | `GeneratedImage` to return more than an image; `GenerationRequest`; `Usage`; `paid_call` around calls that cost money; `load_search` to look things up; `GPU_FAULT_CODE` |
| an agent | `AgentAnswer` and `AnswerStatus` to return; `GenerationRequest`; `ImageRef`, `image_ref`; `UsagePart`; `paid_call` |
| a scorer | nothing for a function; `Sample`, `GroundTruth`, `Generation` for its types; `Score`, `ParsedScore`, `Attempt` to keep replies and a rationale; `ok_score`, `failed_score`, `not_applicable_score`, `missing_needs`, `usage_of`, `Item`; `NEEDS`, `DIMENSIONS` |
| a task | `InMemoryTask`, or `FolderTask`; `Sample`, `GroundTruth`, `ImageRef`, `image_ref`; `GROUPS`, `group_of` |
| a search backend | `Hit`, `ImageHit`, `Page`, `Link`; `image_ref`; `PageBlockedError` and `BlockReason` for what must not be fetched |
| a tool of an agent | `ToolResult`; `ToolContext`, `UsagePart` |
| any of them | `ServiceUnavailableError` where a service cannot answer now, `AccountError` where it rejects every call, `TransientError` where trying again may help, `waiting` around waits for a turn; `RefusalError`, `UnscorableError`; `ConfigError`, `DataError`, `UsageError`, `MissingDependencyError` for one clear line |

The protocols `SimpleGenerator`, `AsyncGenerator`, `BatchGenerator`, `Agent`, `AsyncScorer`, `BatchScorer`, `Task`,
`SearchBackend` and `Tool` are for type checkers: nothing has to be inherited. Guides: `docs/guides/`.
"""  # noqa: E501 - a table row stands on one line

from __future__ import annotations

from knowgen.agents.tools.contract import Tool, ToolContext, ToolResult
from knowgen.core.errors import (
    AccountError,
    ConfigError,
    DataError,
    KnowgenError,
    MissingDependencyError,
    RefusalError,
    ServiceUnavailableError,
    TransientError,
    UnscorableError,
    UsageError,
)
from knowgen.core.metering import paid_call
from knowgen.core.records import (
    DIMENSIONS,
    GROUPS,
    AgentAnswer,
    AnswerStatus,
    Attempt,
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Item,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
    Usage,
    UsagePart,
    group_of,
    image_ref,
)
from knowgen.core.waiting import waiting
from knowgen.generators.contract import (
    GPU_FAULT_CODE,
    Agent,
    AsyncGenerator,
    BatchGenerator,
    GeneratedImage,
    SimpleGenerator,
)
from knowgen.scorers.contract import (
    NEEDS,
    AsyncScorer,
    BatchScorer,
    failed_score,
    missing_needs,
    not_applicable_score,
    ok_score,
    usage_of,
)
from knowgen.search.contract import BlockReason, Hit, ImageHit, Link, Page, PageBlockedError, SearchBackend
from knowgen.search.load import load_search
from knowgen.tasks.contract import Task
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.in_memory import InMemoryTask

__all__ = [
    "DIMENSIONS",
    "GPU_FAULT_CODE",
    "GROUPS",
    "NEEDS",
    "AccountError",
    "Agent",
    "AgentAnswer",
    "AnswerStatus",
    "AsyncGenerator",
    "AsyncScorer",
    "Attempt",
    "BatchGenerator",
    "BatchScorer",
    "BlockReason",
    "ConfigError",
    "DataError",
    "FolderTask",
    "GeneratedImage",
    "Generation",
    "GenerationRequest",
    "GenerationStatus",
    "GroundTruth",
    "Hit",
    "ImageHit",
    "ImageRef",
    "InMemoryTask",
    "Item",
    "KnowgenError",
    "Link",
    "MissingDependencyError",
    "Page",
    "PageBlockedError",
    "ParsedScore",
    "RefusalError",
    "Sample",
    "Score",
    "ScoreStatus",
    "SearchBackend",
    "ServiceUnavailableError",
    "SimpleGenerator",
    "Task",
    "Tool",
    "ToolContext",
    "ToolResult",
    "TransientError",
    "UnscorableError",
    "Usage",
    "UsageError",
    "UsagePart",
    "failed_score",
    "group_of",
    "image_ref",
    "load_search",
    "missing_needs",
    "not_applicable_score",
    "ok_score",
    "paid_call",
    "usage_of",
    "waiting",
]
