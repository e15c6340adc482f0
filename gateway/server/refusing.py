"""Answers of the server itself, where there is no request that the application could answer."""

from __future__ import annotations

from http import HTTPStatus

from gunicorn.http import errors

from gateway.answers import Headers, Refusal

# What gunicorn's parser raises for what isn't HTTP; everything else that a request makes it raise
# is 400.
STATUS_OF_ERROR = (
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
    (errors.InvalidChunkSize, HTTPStatus.BAD_REQUEST),
)


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told whose request made the parser or the application raise this."""
    status = next(
        (status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return Refusal(status, "The gateway failed; its log says why.")
    return Refusal(status, "The request isn't valid HTTP/1.1.")


def as_bytes(refusal: Refusal, more: Headers) -> bytes:
    """A refusal as the last answer on a connection, with `more` headers."""
    answer = refusal.answer()
    lines = [
        f"HTTP/1.1 {answer.status}",
        "Connection: close",
        *[f"{name}: {value}" for name, value in (*answer.headers, *more)],
    ]
    return "\r\n".join([*lines, "", ""]).encode() + b"".join(answer.body)
