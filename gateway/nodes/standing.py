"""What a node's record says, and what the last look at it found. No sockets, no threads.

A node is who its record says: an address that a source names is only where to look. So a node is
`usable` only if its own record was read from it, and its lease (`leased`) lasts `LEASE_SECONDS`
from the sending of the request that read it. Within that time no other layout can come into force
without this gateway knowing.
"""

from __future__ import annotations

import logging
import math
import ssl
import time

from gateway.nodes.abilities import TO_GROW
from gateway.nodes.holdings import Holdings, is_unknown, may_be_given
from gateway.nodes.layout import LEASE_SECONDS, Layout
from gateway.nodes.store import NO_RECORD, Record, UnexpectedAnswer, record_of
from gateway.s3.connection import SPEAKS_TLS, BadAnswer, UpstreamError, wants_tls
from gateway.s3.headers import IF_MATCH
from gateway.s3.reply import Reply

log = logging.getLogger("objgw")

HOLDINGS_SECONDS = 10.0  # between two looks at what a node without a record holds
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (x509_vfy.h).
OTHER_NAME = (62, 64)
CLOSES = "it closes each connection after one answer, so that nobody can prove who it is"
REFUSES = "it refuses the gateway's requests"
JUST_COME = "The node of this id has only just come; try again."
# Why a server of S3 refuses a signed request, by its error code: first where it isn't what its
# container was given, which another container of its name may have been.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
KEY_REFUSALS = {
    "InvalidAccessKeyId": "it doesn't know the access key that its container was given",
    # versitygw's
    "XAdminUserNotFound": "it doesn't know the access key that its container was given",
    "SignatureDoesNotMatch": "its secret key isn't the one that its container was given",
    "AuthorizationHeaderMalformed": "its region isn't the one that its container was given",
}
REFUSALS = {
    **KEY_REFUSALS,
    "RequestTimeTooSkewed": "its clock and the gateway's differ by more than 15 minutes",
    "AccessDenied": "the key that its container was given has no right to read",
}


class Standing:
    """The standing of one node, by the record that was read from it last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.record = NO_RECORD
        self.installation: Layout | None = None  # the layout that this gateway goes by
        # Monotonic time from which on the layout says that the node has a record.
        self.expected_from = math.inf
        self.serves = False  # the last answer was one that a server of S3 gives
        self.usable = False  # its own record was read, so that requests may go to it
        self.checked = -math.inf  # monotonic time of sending the last look that was answered
        self.tried = False  # a look has ended, well or not, that isn't too old to say anything
        self.starting = False  # the last answer was that it can't serve (yet)
        self.silent = False  # the last look got no answer in time
        self.error = ""  # why the last look found neither a record nor its absence
        # What it holds; None where it has a record, or hasn't been listed since it had one.
        self.holdings: Holdings | None = None
        self._listed = -math.inf  # monotonic time of that listing
        # Whether its server decides the conditions of a PUT, and the other headers of one that it
        # doesn't carry out; whether it stores what has come of an upload that was cut. None before
        # that was tried (`gateway.nodes.abilities`).
        self.keeps_conditions: bool | None = None
        self.ignored: frozenset[str] | None = None
        self.stores_cut: bool | None = None

    @property
    def unanswered(self) -> bool:
        """Whether no look was ever answered."""
        return self.checked == -math.inf

    @property
    def layout(self) -> Layout | None:
        """What its record says, whoever it was written to; None where it has none."""
        return self.record.layout

    @property
    def foreign(self) -> bool:
        """Whether its record is of another installation than this gateway's."""
        return self.installation is not None and self.record.foreign_to(self.installation)

    @property
    def new(self) -> bool:
        """Whether it is empty and has no record, so that it may join by itself."""
        held = self.holdings
        return self.serves and self.layout is None and held is not None and held.empty

    @property
    def unknown(self) -> bool:
        """Whether it holds objects and has no record, and the layout doesn't say that it is so."""
        held = self.holdings
        return self.serves and is_unknown(self.name, self.record, held, self.installation)

    def may_be_given(self, layout: Layout) -> bool:
        """Whether the record of this layout may be written to it."""
        return may_be_given(self.name, self.record, self.holdings, layout)

    @property
    def writable(self) -> bool:
        """Whether it may be written to.

        It has a record of this gateway's installation, or none and nothing that isn't known of.
        """
        if self.installation is None or not self.serves:
            return False
        return self.usable or (
            self.layout is None and self.holdings is not None and not self.unknown
        )

    @property
    def to_be_listed(self) -> bool:
        """Whether it has to be found out what it holds."""
        if not self.serves or self.record.etag:
            return False
        return self.holdings is None or time.monotonic() > self._listed + HOLDINGS_SECONDS

    @property
    def ignores(self) -> list[str] | None:
        """The headers of a PUT that its server takes no notice of; None before that is known."""
        if self.keeps_conditions is None or self.ignored is None:
            return None
        return sorted(self.ignored.union(() if self.keeps_conditions else IF_MATCH))

    @property
    def can_grow(self) -> bool | None:
        """Whether a layout that it is in can change; None before that is known."""
        ignores = self.ignores
        return None if ignores is None else TO_GROW.isdisjoint(ignores)

    @property
    def recent(self) -> bool:
        """Whether the last look is so recent that no other layout can be in force."""
        return time.monotonic() < self.checked + LEASE_SECONDS

    @property
    def leased(self) -> bool:
        """Whether a request may be sent over a connection that was proved before."""
        return self.usable and time.monotonic() < self.checked + LEASE_SECONDS

    @property
    def trouble(self) -> str:
        """What is wrong with a node that answers, for an operator; empty where nothing is."""
        if not self.serves:
            return ""
        if self.foreign:
            remedy = f"objgwctl.py add {self.name}"
            return f"it belongs to another installation, and is left alone ({remedy} takes it in)"
        if self.layout:
            return self.record.trouble(self.name)
        if self.unknown:
            remedy = f"objgwctl.py add {self.name}"
            problem = self.holdings.problem if self.holdings else ""
            what = problem or "it holds objects and has no record of whose they are"
            return f"{what}; it is left alone ({remedy} takes it in)"
        if self.checked > self.expected_from:
            remedy = f"objgwctl.py remove --lost {self.name}"
            return f"it lost what it held; bring that back, or give it up: {remedy}"
        return ""

    @property
    def coming(self) -> bool:
        """Whether it may be asked in a moment: it is starting, or about to get its record."""
        return self.starting or self.refusal is JUST_COME

    @property
    def refusal(self) -> str:
        """Why no request goes to it, for a client."""
        if self.error:
            return f"The node of this id gives no record of the layout: {self.error}."
        if self.usable:
            return "The node of this id answers too slowly."
        if self.layout or self.unknown:
            return "The node of this id holds what belongs to another; the gateway's log says more."
        if self.trouble:
            remedy = "an operator has to bring it back or give it up"
            return f"The node of this id lost what it held; {remedy}."
        return JUST_COME

    def take(self, sent: float, reply: Reply, *, closes: bool = False) -> bool:
        """Notes the answer to a look, which was sent at this monotonic time.

        `closes` says that it was the first one on its connection, and the last. Whether it proves
        that the node is who it has to be.
        """
        self.tried, self.silent = True, False
        error, detail = "", ""
        try:
            self.record = record_of(reply, self.record)
            error = self.record.problem
        except UnexpectedAnswer:
            error = refusal_reason(reply)
            detail = f": {reply.status} {reply.code}".rstrip()
        if closes and reply.status < 500:
            error, detail = CLOSES, " (versitygw keeps them with VGW_KEEP_ALIVE=true)"
        if error and error != self.error:
            log.warning("node %s: %s%s", self.name, error, detail)
        self.error, self.starting = error, reply.status >= 500
        if not self.starting:  # a server that is starting says nothing of its record
            self.serves, self.checked = not error, sent
            if self.record.etag:
                self.holdings = None
            self._judge()
        return self.usable and not self.starting

    def lists(self, holdings: Holdings) -> None:
        """Notes what it holds."""
        self.holdings, self._listed = holdings, time.monotonic()

    def failed(self, error: Exception) -> None:
        """Notes that a look ended without an answer."""
        self.tried, self.silent = True, is_silence(error)
        why = reason(error)
        if why != self.error and isinstance(error, BadAnswer):
            log.warning("node %s: %s: %s", self.name, why, error)
        if why != self.error and isinstance(error, ssl.SSLError):
            log.warning("node %s can't be asked: %s", self.name, why)
        self.error = why

    def expect(self, layout: Layout) -> None:
        """Notes the layout that is in force, and whether it says that the node has a record."""
        self.installation = layout
        recorded = self.name in layout.all_names and self.name not in layout.unrecorded
        self.expected_from = min(self.expected_from, time.monotonic()) if recorded else math.inf
        self._judge()

    def _judge(self) -> None:
        self.usable = self.serves and self.record.own(self.name) is not None and not self.foreign

    def wrote(self, layout: Layout, etag: str) -> None:
        """Notes the record that was just written to it."""
        self.record = Record(layout, self.name, etag)
        self._judge()


def refusal_reason(reply: Reply) -> str:
    """Why a node answers with neither a record nor its absence, in words.

    >>> refusal_reason(Reply(404, {}, b"<html>", 0))
    "it isn't a server of S3"
    """
    if reply.status >= 500:
        return "it answers that it can't serve"
    if reply.status == 400 and wants_tls(reply.body):
        return SPEAKS_TLS
    if not reply.code:
        return "it isn't a server of S3"
    return f"{REFUSES}: {REFUSALS[reply.code]}" if reply.code in REFUSALS else REFUSES


def reason(error: Exception) -> str:
    """Why a node gave no answer, in words.

    >>> reason(ConnectionRefusedError()), reason(TimeoutError())
    ('it refuses connections', "it doesn't answer in time")
    """
    cause = error.__cause__ if isinstance(error, UpstreamError) else error
    if isinstance(error, BadAnswer):
        return error.told
    if isinstance(cause, TimeoutError):
        return "it doesn't answer in time"
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in OTHER_NAME:  # whose text has the node's address
            return "its certificate is for another name"
        return f"its certificate isn't trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "it doesn't speak TLS"
    if isinstance(cause, ConnectionRefusedError):
        return "it refuses connections"
    return "it breaks off" if isinstance(error, UpstreamError) else "it can't be reached"


def is_silence(error: Exception) -> bool:
    """Whether a node was silent for too long, so that it may have taken the request."""
    return isinstance(error.__cause__, TimeoutError)
