"""How is the local cluster started, watched and stopped?

There is one supervisor process, without threads of its own and without gRPC. Services start
stage by stage (router, then pools and attention, then gateway), each stage when the one
before is ready. When a service dies, the cluster ends with an error that shows the end of its
log, unless another service of its group runs: then that one keeps serving, and the dead one is
started again (`expertmesh/cluster/restarts.py`).
"""

import os
import time
from collections.abc import Callable, Iterable

import httpx
import psutil

from expertmesh.cluster.process import ServiceProcess
from expertmesh.cluster.progress import Progress
from expertmesh.cluster.restarts import Restarts
from expertmesh.cluster.signals import StopSignals
from expertmesh.cluster.spec import ClusterPlan
from expertmesh.cluster.state import RunDir
from expertmesh.console import CommandError

_START_POLL_S = 0.1
_WATCH_POLL_S = 0.2
_STOP_POLL_S = 0.05


class Stopped(Exception):
    """A signal asked to stop while the cluster was starting."""


class Cluster:
    """The processes of one plan; `start`, `watch` and `stop` are called in that order."""

    def __init__(self, plan: ClusterPlan, run_dir: RunDir, signals: StopSignals):
        self.plan = plan
        self._run_dir = run_dir
        self._signals = signals
        self._services: dict[str, ServiceProcess] = {}
        self._restarts = Restarts()
        self._started_at = psutil.Process().create_time()
        self._client = httpx.Client(trust_env=False)

    @property
    def url(self) -> str | None:
        """Base URL of the gateway; None until it has bound its port."""
        found = (
            one.addresses["http"] for one in self._services.values() if "http" in one.addresses
        )
        return next((f"http://{address}" for address in found), None)

    def start(self, progress: Progress, timeout_s: float) -> None:
        """Start every stage and wait until all are ready.

        Raises CommandError naming the service that failed, with the end of its log, and Stopped
        if a signal came first.
        """
        deadline = time.monotonic() + timeout_s
        for stage in self.plan.stages:
            for spec in stage:
                service = ServiceProcess(spec, self._run_dir.log_path(spec.name))
                self._services[spec.name] = service
                service.start({name: one.addresses for name, one in self._services.items()})
                progress.update(spec.name, "starting")
            self.save("starting")
            self._await_ready([self._services[spec.name] for spec in stage], progress, deadline)
            self.save("starting")
        self.save("ready")

    def watch(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Watch the services until a signal asks to stop; `say` gets a line per death or return.

        Raises CommandError when a service dies that no other can replace.
        """
        while not self._signals.stop.wait(_WATCH_POLL_S):
            if self._note_deaths(say) | self._restart_due(say) | self._note_ready(say):
                self.save("degraded" if self._restarts.any_away else "ready")

    def stop(self, grace_s: float, say: Callable[[str], None] = lambda line: None) -> bool:
        """Stop in reverse order of the stages, `grace_s` for each; True if nothing was killed."""
        self.save("stopping")
        clean = True
        for stage in reversed(self.plan.stages):
            running = [
                self._services[spec.name]
                for spec in stage
                if spec.name in self._services and self._services[spec.name].running
            ]
            for service in running:
                service.terminate()
            self._await_exit(running, grace_s)
            for service in running:
                if service.running:
                    clean = False
                    say(f"{service.spec.name} did not stop in time: killed")
                    service.kill()
        self._client.close()
        return clean

    def save(self, phase: str, error: str | None = None) -> None:
        """Write the state file."""
        self._run_dir.write(
            {
                "version": 1,
                "pid": os.getpid(),
                "started_at": self._started_at,
                "phase": phase,
                "error": error,
                "url": self.url,
                "model": self.plan.model,
                "stop_s": self.plan.stop_grace_s * len(self.plan.stages),
                "services": [
                    {
                        "name": name,
                        "pid": service.pid,
                        "started_at": service.started_at,
                        "log": str(service.log_path),
                        "group": service.spec.group,
                        **self._restarts.facts(name, time.monotonic(), time.time()),
                        **service.addresses,
                    }
                    for name, service in self._services.items()
                ],
            }
        )

    def _await_ready(
        self, services: Iterable[ServiceProcess], progress: Progress, deadline: float
    ) -> None:
        waiting = list(services)
        while waiting:
            if self._signals.stop.is_set():
                raise Stopped
            self._raise_if_died()
            for service in list(waiting):
                ready, text = service.readiness(self._client)
                progress.update(service.spec.name, text, ready=ready)
                if ready:
                    waiting.remove(service)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(service.spec.name for service in waiting)
                raise CommandError(
                    f"not ready in time: {names}; the end of {waiting[0].log_path}:\n"
                    f"{waiting[0].tail()}"
                )
            if waiting:
                self._signals.stop.wait(_START_POLL_S)

    def _await_exit(self, services: Iterable[ServiceProcess], grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        while any(service.running for service in services):
            if time.monotonic() > deadline or self._signals.kill.is_set():
                return
            time.sleep(_STOP_POLL_S)

    def _raise_if_died(self) -> None:
        for service in self._services.values():
            ending = service.exit_text()
            if ending is not None:
                raise _death(service, ending)

    def _note_deaths(self, say: Callable[[str], None]) -> bool:
        """Check for services that died; returns whether one did. Raises CommandError."""
        found = False
        for name, service in self._services.items():
            ending = None if self._restarts.waits(name) else service.exit_text()
            if ending is None:
                continue
            if not self._stand_ins(service):
                if service.spec.group:
                    ending += f", and no other {service.spec.group} is running"
                raise _death(service, ending)
            self._lose(name, ending, say)
            found = True
        return found

    def _lose(self, name: str, ending: str, say: Callable[[str], None]) -> None:
        service = self._services[name]
        pause_s = self._restarts.died(name, ending, time.monotonic())
        others = self._stand_ins(service)
        say(
            f"{name} {ending}; still running: {', '.join(others)}; it will be started again in "
            f"{pause_s:.0f} s; its log: {service.log_path}"
        )

    def _restart_due(self, say: Callable[[str], None]) -> bool:
        """Start the dead services whose pause is over; returns whether there was one."""
        due = self._restarts.due(time.monotonic())
        addresses = {name: one.addresses for name, one in self._services.items()}
        told = {dialled for one in self.plan.services for _, dialled in one.dials}
        for name in due:
            self._restarts.started(name, time.monotonic())
            try:
                self._services[name].start(addresses, same_address=name in told)
            except OSError as error:  # out of processes, files or memory at the moment
                self._lose(name, f"could not be started: {error}", say)
        return bool(due)

    def _note_ready(self, say: Callable[[str], None]) -> bool:
        """Check for restarted services that are ready; returns whether there was one."""
        ready = [
            name
            for name in self._restarts.starting()
            if self._services[name].readiness(self._client)[0]
        ]
        for name in ready:
            self._restarts.back(name)
            say(f"{name} is ready again")
        return bool(ready)

    def _stand_ins(self, service: ServiceProcess) -> list[str]:
        """The running services of its group without itself."""
        return [
            other.spec.name
            for other in self._services.values()
            if other is not service and other.running and service.spec.group
            if other.spec.group == service.spec.group
        ]


def _death(service: ServiceProcess, ending: str) -> CommandError:
    return CommandError(
        f"{service.spec.name} {ending}; the end of {service.log_path}:\n{service.tail()}"
    )
