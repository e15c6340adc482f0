"""The gateway without metrics, access log and page: what those cost a request."""

from __future__ import annotations

import os
from dataclasses import replace

import objgw
from gateway.objects.semantics import Answer, Environ
from gateway.status.routes import Observation, Status


class Unseen(Observation):
    """A request that nobody looks at."""

    def end(self, answer: Answer) -> Answer:
        return answer


UNSEEN = Unseen()


class Unwatched(Status):
    """Nothing is counted, logged for a request, or looked at in the background."""

    def start(self) -> None:
        pass

    def begin(self, environ: Environ) -> Observation:  # noqa: ARG002
        return UNSEEN


class Quiet(objgw.Gateway):
    """The gateway with that."""

    def __init__(self, settings: objgw.Settings) -> None:
        super().__init__(replace(settings, access_log="off", page="off"))
        self.status = Unwatched(self.discovery, self.settings)


app = Quiet(objgw.Settings.from_environ(os.environ))
