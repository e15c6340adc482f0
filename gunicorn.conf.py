"""gunicorn's settings; it reads this file by itself where it is started: `gunicorn -b 0.0.0.0:3000 objgw:app`."""

import logging
import os
from typing import Any

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

worker_class = "objgwserver.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY") or len(os.sched_getaffinity(0)))
worker_connections = 4096
keepalive = 60  # seconds that a connection may wait for a request; also for a request's headers to come
graceful_timeout = 25
control_socket_disable = True
worker_tmp_dir = "/dev/shm"


def post_worker_init(worker: Any) -> None:
    """Looks for nodes before the first request asks for one."""
    worker.client_timeout = worker.wsgi.settings.client_timeout
    worker.wsgi.start()
