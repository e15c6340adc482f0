"""gunicorn's settings.

gunicorn reads this file by itself where it is started: `gunicorn -b 0.0.0.0:3000 objgw:app`.
"""

import atexit
import itertools
import logging
import os
import resource
import secrets
import signal
from logging.config import dictConfig
from pathlib import Path
from typing import Any

# The workers' folder in memory, which prometheus_client wants to know when it is imported. A reload
# keeps it.
folder = os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", f"/dev/shm/objgw-{secrets.token_hex(8)}")
from gateway.privileges import drop_privileges  # noqa: E402
from gateway.server import start  # noqa: E402
from gateway.settings import read_or_exit  # noqa: E402
from gateway.status import logs, metrics  # noqa: E402

told = drop_privileges(os.environ)  # before the settings, whose files are for that user
settings = start.settings = read_or_exit()
logconfig_dict = logs.log_settings(settings)
dictConfig(logconfig_dict)
if told[1]:
    logging.getLogger("objgw").log(*told)


def cores() -> int:
    """The cores that this container may use.

    That is its CPU set, and the quota of cgroup v2 or v1, rounded up.
    """
    available = len(os.sched_getaffinity(0))
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(
                Path("/sys/fs/cgroup", name).read_text() for name in files
            ).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            available = min(available, -(-int(quota) // int(period)))
    return max(1, available)


def allow_files(wanted: int) -> None:
    """Lets each process have so many open files, or as many as it may: each connection is one.

    Newer engines begin with 1,024 of 524,288: https://github.com/containerd/containerd/pull/8924
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


allow_files(65536)


def leave_nothing(process: int) -> None:
    """Removes what is in memory, if this is the process that has made it."""
    if os.getpid() == process:
        metrics.forget_all()
        Path(f"{folder}.address").unlink(missing_ok=True)


os.makedirs(folder, 0o700, exist_ok=True)
atexit.register(leave_nothing, os.getpid())
user, group = os.getuid(), os.getgid()  # gunicorn's defaults are those that it was started with

worker_class = "gateway.server.worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY") or cores())
worker_connections = 4096
# Seconds that a connection may wait for a request, and a request's headers may take to come.
keepalive = 60
graceful_timeout = 25
control_socket_disable = True
# No header that a proxy sets has a meaning here, so no peer's address has to be compared with those
# of proxies.
forwarded_allow_ips = "*"
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
worker_tmp_dir = "/dev/shm"
# Names with underscores come as they are: our worker doesn't mistake them for others.
header_map = "dangerous"


def on_starting(arbiter: Any) -> None:
    """Ends the start where it can't succeed, and says what every worker would say otherwise."""
    arbiter.tls = start.require_startable(arbiter.cfg)
    if not (settings.tokens or settings.read_tokens):
        logging.getLogger("objgw").info(
            "no token is set: whoever reaches the gateway may read and write"
        )


def when_ready(arbiter: Any) -> None:
    """Tells the health check where to ask, and lets no reload end the gateway."""
    start.tell_address(f"{folder}.address", arbiter.LISTENERS[0], tls=bool(arbiter.cfg.is_ssl))
    start.guard_reload(arbiter)


def pre_fork(arbiter: Any, worker: Any) -> None:
    """Gives a new worker what it serves TLS with, and the lowest number that no living one has.

    That is the number of the one it replaces.
    """
    worker.tls = arbiter.tls
    taken = {living.number for living in arbiter.WORKERS.values()}
    worker.number = next(number for number in itertools.count() if number not in taken)


def post_fork(_arbiter: Any, worker: Any) -> None:
    """Lets the worker count on from where the last one with this number ended.

    It also hears of a stop from here on. Until gunicorn sets the worker's own handlers, which takes
    a while, those of the arbiter would take the signal, and nobody would hear of it.
    """
    for stop in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(stop, worker.handle_exit)
    metrics.count_as(worker.number)


def post_worker_init(worker: Any) -> None:
    """Looks for nodes before the first request asks for one."""
    worker.client_timeout = worker.wsgi.settings.client_timeout
    worker.client_connections = worker.wsgi.settings.client_connections
    worker.cors = worker.wsgi.cors
    worker.wsgi.start()


def child_exit(_arbiter: Any, worker: Any) -> None:
    """Lets nobody see the state of a worker that is gone."""
    metrics.worker_ended(worker.number)


def on_exit(_arbiter: Any) -> None:
    """Leaves nothing behind. A daemon isn't the process that has read this file."""
    leave_nothing(os.getpid())
