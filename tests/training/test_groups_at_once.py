"""Several groups of episodes that run at once, as in the workers of a cluster."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.helpers.episodes import Step, prompt_of, red_image


def test_groups_that_run_at_once_keep_their_calls_apart() -> None:
    requests = []

    async def slow(request: Any) -> Any:
        requests.append(request.id)
        await asyncio.sleep(5)
        return await red_image(request)

    class Groups(Step):
        async def _steps(self, prompts: Any, steps: int) -> Any:
            runner = self.runner()
            groups = [runner.run([prompt] * 3, 1, [1, 2, 3]) for prompt in prompts]
            return [episode for group in await asyncio.gather(*groups) for episode in group]

    episodes = Groups(painter=slow).run([prompt_of("a"), prompt_of("b")])
    assert len(set(requests)) == 6
    assert [(each.prompt.key, each.number) for each in episodes] == [(f"t/{key}", n) for key in "ab" for n in range(3)]
    assert [score.repeat for each in episodes for score in each.reward.scores] == [0, 0, 1, 1, 2, 2] * 2
