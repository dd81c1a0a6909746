"""Whose cancellation is it: the running task's, or that of something it awaits?"""

import asyncio


def is_being_cancelled() -> bool:
    """Whether somebody cancels the running task, as against an awaited RPC being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
