"""Has an engine in this process freed everything?"""

import time

from expertmesh import LLM


def engine_idle(llm: LLM) -> bool:
    """Within a second: no sequence, no block in use."""
    scheduler = llm.opened.backend._core.pool.replicas[0].stub._servicer._engine.scheduler
    for _ in range(100):
        if not scheduler.running and not scheduler.waiting and scheduler.kv_usage_ratio == 0.0:
            return True
        time.sleep(0.01)
    return False
