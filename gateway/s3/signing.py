"""A request's line and headers, with a signature (SigV4) of which the day's key is kept.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time

from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.headers import PAYLOAD_DIGEST

UNSIGNED = "UNSIGNED-PAYLOAD"


class Signer:
    """Signs the requests to one node."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._authority = endpoint.authority
        self._second = 0
        self._stamp = self._scope = self._credential = self._to_sign = self._plain_signed = (
            self._plain_sent
        ) = ""
        self._keyed = keyed(b"")

    def head(self, request: Request) -> bytes:
        """A request's line and headers, with the signature.

        It covers path, host, time and every x-amz-* header. The body isn't hashed, unless the
        client has sent its hash: the way to the node is a Docker network, and the length is
        checked.
        """
        now = int(time.time())
        if now != self._second:
            self._tick(now)
        method, path, headers, upload, request_id, unsigned = request
        if request_id:
            unsigned = f"x-request-id: {request_id}\r\n{unsigned}"
        if not headers and upload is None and "?" not in path:
            digest = hashlib.sha256(
                f"{method}\n{path}{self._plain_signed}".encode("latin-1")
            ).hexdigest()
            return (
                f"{method} {path}{self._plain_sent}{self._sign(digest)}\r\n{unsigned}\r\n".encode(
                    "latin-1"
                )
            )
        signed = {"host": self._authority, PAYLOAD_DIGEST: UNSIGNED, "x-amz-date": self._stamp}
        sent = "".join([f"{name}: {value}\r\n" for name, value in {**signed, **headers}.items()])
        for name, value in headers.items():
            if name.startswith("x-amz-"):
                signed[name] = " ".join(value.split())
        if upload is not None:
            sent += f"content-length: {upload.length}\r\n"
            if request.careful:
                sent += "expect: 100-continue\r\n"
        names = sorted(signed)
        listed = ";".join(names)
        fields = "".join([f"{name}:{signed[name]}\n" for name in names])
        resource = path.replace("?", "\n", 1) if "?" in path else f"{path}\n"
        canonical = f"{method}\n{resource}\n{fields}\n{listed}\n{signed[PAYLOAD_DIGEST]}"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        authorization = (
            f"{self._credential}, SignedHeaders={listed}, Signature={self._sign(digest)}"
        )
        lines = f"{method} {path} HTTP/1.1\r\n{sent}authorization: {authorization}\r\n"
        return f"{lines}{unsigned}\r\n".encode("latin-1")

    def _sign(self, digest: str) -> str:
        """The signature of a canonical request with this digest."""
        inner, outer = self._keyed[0].copy(), self._keyed[1].copy()
        inner.update(f"{self._to_sign}{digest}".encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def _tick(self, now: int) -> None:
        """Renews the time stamp, what follows from it, and the signing key of the day."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{stamp[:8]}/{self._endpoint.region}/s3/aws4_request"
        if scope != self._scope:
            key = f"AWS4{self._endpoint.secret_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keyed = keyed(key)
        self._second, self._stamp, self._scope = now, stamp, scope
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        # A header is sent as Latin-1, and MinIO reads a key as UTF-8.
        credential = f"{self._endpoint.access_key}/{scope}".encode().decode("latin-1")
        self._credential = f"AWS4-HMAC-SHA256 Credential={credential}"
        # A request without headers of its own differs from others in method and path alone, so
        # that the rest of what head() makes is kept.
        host, listed = self._authority, "host;x-amz-content-sha256;x-amz-date"
        self._plain_signed = (
            f"\n\nhost:{host}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{stamp}\n\n"
            f"{listed}\n{UNSIGNED}"
        )
        self._plain_sent = (
            f" HTTP/1.1\r\nhost: {host}\r\n"
            f"x-amz-content-sha256: {UNSIGNED}\r\nx-amz-date: {stamp}\r\n"
            f"authorization: {self._credential}, SignedHeaders={listed}, Signature="
        )


def keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Both hashes of HMAC-SHA-256 (RFC 2104, 2) after the key, which has at most 64 bytes.

    Copies of them go on with a text, in half the time of `hmac.digest`.
    """
    padded = key.ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return inner, outer
