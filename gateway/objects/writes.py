"""What a PUT or DELETE asks for besides its bytes.

Nothing succeeds silently. Whatever would change what is stored or deleted, and is carried out
neither by the gateway nor by the node, is refused with its reason. That is: a part of an object
(Content-Range), a condition that nobody can decide without a race, S3's other operations (queries,
x-amz-* headers), a checksum that nobody compares, and a value that the node would change. All else
has no effect, and doesn't reach the node.

Conditions (RFC 9110, 13). The node decides those of a PUT, because it alone can do so without a
race. S3 compares one ETag or `*`. No server decides a condition on DELETE together with it
(minio/minio#21677).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from http import HTTPStatus

from gateway.answers import Environ, Refusal
from gateway.objects.dates import is_canonical
from gateway.s3.headers import IF_MATCH, PAYLOAD_DIGEST, STORED

# What goes to the node, by its WSGI name.
HANDED_ON = {
    f"HTTP_{name.upper().replace('-', '_')}": name
    for name in (*STORED, *IF_MATCH, "content-md5", PAYLOAD_DIGEST)
}
HANDED_ON_AMZ = re.compile(
    r"HTTP_X_AMZ_(?:META_.+|CHECKSUM_(?:CRC32|CRC32C|CRC64NVME|SHA1|SHA256))"
)
OURS = "x-amz-meta-objgw-"  # what the gateway notes with objects, see gateway.nodes.layout
NEEDS_A_VALUE = re.compile(
    r"if-(?:none-)?match|content-(?:md5|encoding)|x-amz-c(?:hecksum-\w+|ontent-sha256)"
)

NOT_WHOLE = "isn't taken: a PUT replaces the whole object"
NOT_COMPARED = "isn't compared; send Content-MD5 or x-amz-checksum-sha256"
NOT_DONE = {
    "HTTP_CONTENT_RANGE": f"{NOT_WHOLE} (RFC 9110, 14.5)",
    "HTTP_UPLOAD_COMPLETE": NOT_WHOLE,
    "HTTP_CONTENT_DIGEST": NOT_COMPARED,
    "HTTP_REPR_DIGEST": NOT_COMPARED,
    "HTTP_DIGEST": NOT_COMPARED,
    "HTTP_X_HTTP_METHOD": "isn't taken; send the method itself",
    "HTTP_X_HTTP_METHOD_OVERRIDE": "isn't taken; send the method itself",
    "HTTP_X_METHOD_OVERRIDE": "isn't taken; send the method itself",
}
# S3's headers, and those of its servers, each say something of the object; but for these, which are
# about the request.
OF_S3 = re.compile(r"HTTP_X_(?:AMZ|MINIO|RUSTFS)_.*")
ABOUT_THE_REQUEST = frozenset(
    f"HTTP_X_AMZ_{name}"
    for name in ("CF_ID", "DATE", "SDK_CHECKSUM_ALGORITHM", "SECURITY_TOKEN", "USER_AGENT")
)
# Conditions that mean nothing to PUT and DELETE (RFC 9110, 13.1.3 and 13.1.5).
ON_READING = frozenset({"HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE"})

ONE_ETAG = re.compile(r'\*|(?:W/)?"[^",]*"')  # S3 would take a list for one ETag
SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
FRAMED = (
    "A body in S3's own framing (aws-chunked, STREAMING-…) isn't taken; send its bytes as they are."
)


def writing(environ: Environ) -> dict[str, str]:
    """The headers of a PUT that go to the node.

    Raises Refusal for what would be changed, misjudged or left out.
    """
    headers = {"content-type": environ.get("CONTENT_TYPE") or "application/octet-stream"}
    for key, name in effects(environ).items():
        value = headers[name] = environ[key]
        if name.startswith(OURS):
            raise bad_request("The x-amz-meta-objgw-* headers are the gateway's own.")
        # MinIO would give it back as encoded words (RFC 2047).
        if name.startswith("x-amz-") and not value.isascii():
            raise bad_request("An x-amz-* header may have ASCII only.")
        if not value and NEEDS_A_VALUE.fullmatch(name):
            raise bad_request(f"{name} is empty; leave it out.")
    # MinIO would drop or change it.
    if "expires" in headers and not is_canonical(headers["expires"]):
        raise bad_request("Expires is no date like: Sun, 06 Nov 1994 08:49:37 GMT.")
    if "aws-chunked" in re.split(r"[\s,]+", headers.get("content-encoding", "").lower()):
        raise bad_request(FRAMED)
    for name in IF_MATCH:
        if not ONE_ETAG.fullmatch(headers.get(name, "*")):
            raise bad_request(f"{name} takes one ETag in quotes here, or *.")
    # It is compared weakly (RFC 9110, 13.1.2), and S3 knows no weak ETags.
    if headers.get("if-none-match", "").startswith("W/"):
        headers["if-none-match"] = headers["if-none-match"][2:]
    digest = headers.pop(PAYLOAD_DIGEST, "UNSIGNED-PAYLOAD")
    if SHA256.fullmatch(digest):
        headers[PAYLOAD_DIGEST] = digest.lower()
    elif digest != "UNSIGNED-PAYLOAD":
        raise bad_request(FRAMED)
    return headers


def deleting(environ: Environ) -> None:
    """Raises Refusal for a DELETE that asks for more than that the object be deleted."""
    for name in effects(environ).values():
        if name in IF_MATCH:
            raise undecided(name)


def effects(environ: Environ) -> dict[str, str]:
    """The headers of a PUT or DELETE that go to the node: their names by their WSGI names.

    Raises Refusal where one would have an effect that nobody carries out.
    """
    # ?tagging, ?uploadId=, ?versionId= and others would be other operations of S3.
    if environ.get("QUERY_STRING"):
        raise bad_request("PUT and DELETE take no query: each is about the object itself.")
    found = {
        key: name for key in environ if key.startswith("HTTP_") and (name := effect(key, environ))
    }
    # WSGI can't tell a name with an underscore from the one with a hyphen, so the server leaves
    # such headers out.
    for key in environ.get("objgw.underscored", ()):
        if acts(key, environ):
            raise bad_request(
                "A header's name has an underscore, "
                "which WSGI can't tell from a hyphen; write a hyphen."
            )
    for name in environ["HTTP_TRAILER"].split(",") if "HTTP_TRAILER" in environ else ():
        if acts(f"HTTP_{name.strip().upper().replace('-', '_')}", environ):
            raise bad_request(f"{name.strip()} isn't taken after the body; send it before.")
    return found


def acts(key: str, environ: Mapping[str, str]) -> bool:
    """Whether a header of this WSGI name would have an effect, carried out or not."""
    try:
        return bool(effect(key, environ))
    except Refusal:
        return True


def effect(key: str, environ: Mapping[str, str]) -> str:
    """The name under which a header goes to the node; empty where it has no effect.

    Raises Refusal like `effects`.
    """
    # If-Match comes first (RFC 9110, 13.2.2).
    if key == "HTTP_IF_UNMODIFIED_SINCE" and "HTTP_IF_MATCH" in environ:
        return ""
    return effect_alone(key)


@functools.lru_cache(maxsize=256)
def effect_alone(key: str) -> str:
    name = key[5:].replace("_", "-").lower()
    if key in HANDED_ON or HANDED_ON_AMZ.fullmatch(key):
        return name
    if key in NOT_DONE:
        raise bad_request(f"{name} {NOT_DONE[key]}.")
    if (key == "HTTP_IF" or key.startswith("HTTP_IF_")) and key not in ON_READING:
        raise undecided(name)
    if OF_S3.fullmatch(key) and key not in ABOUT_THE_REQUEST:
        raise bad_request(f"{name} isn't carried out here; leave it out.")
    return ""


def bad_request(detail: str) -> Refusal:
    """400: the request can't be carried out as it is."""
    return Refusal(HTTPStatus.BAD_REQUEST, detail)


def undecided(name: str) -> Refusal:
    """501: no node decides this condition together with the write (RFC 9110, 13.1)."""
    return Refusal(
        HTTPStatus.NOT_IMPLEMENTED,
        f"No node can decide {name} here without a race; nothing was done.",
    )
