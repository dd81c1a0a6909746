"""Which cancellation is it: the running task's, or that of an RPC it awaits?"""

import asyncio


def is_being_cancelled() -> bool:
    """Whether the running task is being cancelled, and not only an RPC that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
