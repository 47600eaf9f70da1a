"""PyRIT against a model that `bitlens serve MODEL` serves: one attack, its memory kept nowhere.

python docs/examples/pyrit_attack.py URL MODEL "How many moons has the earth?"
"""

from __future__ import annotations

import asyncio
import sys

from pyrit.executor.attack import PromptSendingAttack
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.setup import IN_MEMORY, initialize_pyrit_async


async def main(url: str, model: str, objective: str) -> None:
    await initialize_pyrit_async(IN_MEMORY)
    target = OpenAIChatTarget(
        endpoint=f"{url}/v1",
        api_key="none",
        model_name=model,
        temperature=0.0,
        max_completion_tokens=24,
    )
    attack = PromptSendingAttack(objective_target=target)
    result = await attack.execute_async(objective=objective)
    print("answer:", result.last_response.converted_value)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
