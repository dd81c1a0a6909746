"""What does `up` do until Ctrl-C? Start the cluster, greet, watch it, stop it."""

import contextlib
import sys
import threading
import time
from functools import partial

from rich.console import Console

from expertmesh.clients.chat import ChatClient, Reply
from expertmesh.clients.transcript import Thinking, show_reply
from expertmesh.cluster.cluster import Cluster, Stopped
from expertmesh.cluster.progress import LiveProgress, PlainProgress, Progress
from expertmesh.cluster.signals import StopSignals
from expertmesh.cluster.snippets import ready_text
from expertmesh.cluster.spec import ClusterPlan
from expertmesh.cluster.state import RunDir
from expertmesh.console import EXIT_FAILED, CommandError
from rpc.process.open_files import raise_open_files


def supervise(
    plan: ClusterPlan,
    run_dir: RunDir,
    *,
    greeting: bool = True,
    ask: str | None = None,
    api_key: str | None = None,
    start_timeout_s: float,
    out: Console,
    notes: Console,
) -> int:
    """Run the cluster until a signal; returns the exit code. Raises CommandError if it fails."""
    raise_open_files()
    with run_dir.lock(), StopSignals() as signals:
        run_dir.renew_secret()
        cluster = Cluster(plan, run_dir, signals)
        try:
            started = time.monotonic()
            progress: Progress = (
                LiveProgress(notes, [service.name for service in plan.services])
                if notes.is_terminal
                else PlainProgress(notes)
            )
            with contextlib.closing(progress):
                cluster.start(progress, start_timeout_s)
            notes.print(f"ready in {time.monotonic() - started:.1f} s")
            if greeting:  # in a thread, so that a service that dies meanwhile is noticed
                assert cluster.url is not None
                arguments = (cluster.url, run_dir, ask, api_key, out, notes)
                threading.Thread(target=greet, args=arguments, daemon=True).start()
            cluster.watch(partial(notes.print, markup=False, soft_wrap=True))
        except Stopped:
            pass
        except CommandError as error:
            _stop(cluster, notes)
            cluster.save("failed", str(error))
            raise
        clean = _stop(cluster, notes)
        run_dir.remove_state()
        return 0 if clean or not signals.kill.is_set() else EXIT_FAILED


def greet(
    url: str, run_dir: RunDir, ask: str | None, api_key: str | None, out: Console, notes: Console
) -> None:
    """Ask `ask`, then print how to use the cluster. Failures are printed, not raised."""
    client = ChatClient(url, api_key)
    try:
        model_name = client.model_name()
        if ask:
            out.print(f"\n> {ask}", style="bold", markup=False)
            reply = Reply()
            body = {"model": model_name, "messages": [{"role": "user", "content": ask}]}
            pieces = client.stream(body, reply)
            show_reply(pieces, reply, out=out, notes=out, thinking=Thinking.FULL)
            out.print(f"({reply.speed_line()})\n", style="dim")
        text = ready_text(url, model_name, str(run_dir.path), needs_key=bool(api_key))
        out.print(text, markup=False, soft_wrap=True)
        if sys.stdin.isatty():
            out.print("\nCtrl-C stops every process.")
    except CommandError as error:
        notes.print(f"the first request failed: {error}", style="red", markup=False)
    finally:
        client.close()


def _stop(cluster: Cluster, notes: Console) -> bool:
    notes.print("stopping")
    clean = cluster.stop(cluster.plan.stop_grace_s, partial(notes.print, markup=False))
    notes.print("stopped")
    return clean
