"""The gateway without metrics, access log and page: what those cost a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import objgw
from gateway.answers import Answer, Environ
from gateway.settings import Settings
from gateway.status.metrics import Metrics
from gateway.status.observation import Observation
from gateway.status.recorder import Recorder
from gateway.status.routes import Status


class Unseen(Observation):
    """A request that nobody looks at."""

    def end(self, answer: Answer, delivered: Any = None) -> Answer:  # noqa: ARG002
        return answer


UNSEEN = Unseen()


class Unrecorded(Recorder):
    """Nothing is counted or logged for a request."""

    def start(self) -> None:
        pass

    def begin(self, environ: Environ) -> Observation:  # noqa: ARG002
        return UNSEEN


class Unwatched(Status):
    """Nothing is looked at in the background."""

    def start(self) -> None:
        pass


class Quiet(objgw.Gateway):
    """The gateway with that."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(replace(settings, access_log="off", page="off"))
        self.recorder = Unrecorded(Metrics(), self.settings)
        self.status = Unwatched(self.discovery, self.recorder.metrics, self.leader)


app = Quiet(objgw.app.settings)
