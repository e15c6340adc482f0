"""What all fake nodes share: they keep the layout's record as S3 does, for else they would get no
request.

A fake node is a Python script that runs in a container of its own (`Stack.add_fake`). `RECORDS` is
put before the script, which asks `keep_record` first and does to all other paths what it is there
for.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RECORDS = r'''
import base64, hashlib, socketserver, threading

BUCKET = "/objgw-layout"
RECORDS, RECORDS_LOCK = {}, threading.Lock()  # the bodies by their paths; the bucket itself is BUCKET: b""
KEPT = {}  # the headers of what is stored, by path
KEPT_NAMES = ("content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "expires")


def read_head(file):
    """Method, path and headers (names in lower case) of the next request; None at the end of the connection."""
    line = file.readline()
    if not line:
        return None
    method, path, _ = line.decode().split()
    headers = {}
    while (header := file.readline()) not in (b"\r\n", b""):
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return method, path, headers


def requests(handler):
    """The requests on a connection, each with its body; those that `keep_record` answers aren't among them."""
    while head := read_head(handler.rfile):
        if "expect" in head[2]:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = handler.rfile.read(int(head[2].get("content-length", 0)))
        if kept := keep_record(*head, body):
            handler.wfile.write(kept)
        else:
            yield *head, body


def serve(handler, queue=5):
    """Serves port 9000 for good, with this handler of connections."""
    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = queue
    Server(("0.0.0.0", 9000), handler).serve_forever()


def etag_of(body):
    return '"%s"' % hashlib.md5(body).hexdigest()


def keep_record(method, path, headers, body):
    """The whole answer to a request for the bucket of the layout's record, or a key in it; None for other paths."""
    path = path.partition("?")[0]
    if path.rstrip("/") != BUCKET and not path.startswith(BUCKET + "/"):
        return None
    with RECORDS_LOCK:
        status, etag, answer = decide(method, path.rstrip("/"), headers, body)
    lines = [f"HTTP/1.1 {status} S3"] + ([f"ETag: {etag}"] if etag else [])
    if status not in (204, 304):
        kept = KEPT.get(path, {}) if method in ("GET", "HEAD") and status == 200 else {}
        lines += [f"Content-Length: {len(answer)}", *(f"{name}: {value}" for name, value in kept.items())]
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + (b"" if method == "HEAD" or status in (204, 304) else answer)


def is_wrong(header):
    """Whether it is a checksum of zeros, which nothing has that is sent."""
    name, value = header
    if name == "x-amz-content-sha256":
        return value == "0" * 64
    return (name == "content-md5" or name.startswith("x-amz-checksum-")) and not any(base64.b64decode(value))


def decide(method, path, headers, body):
    """Status, ETag and body of the answer."""
    def error(status, code):
        return status, "", b"<Error><Code>%s</Code></Error>" % code.encode()

    if len(body) < int(headers.get("content-length", 0)):
        return error(400, "IncompleteBody")
    if method == "PUT" and any(map(is_wrong, headers.items())):
        return error(400, "BadDigest")
    if path == BUCKET and method == "PUT":
        RECORDS.setdefault(BUCKET, b"")
        return 200, "", b""
    if BUCKET not in RECORDS:
        return error(404, "NoSuchBucket")
    stored = RECORDS.get(path)
    etag = "" if stored is None or path == BUCKET else etag_of(stored)
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if method == "DELETE":
        RECORDS.pop(path, None)
        return 204, "", b""
    if stored is None and (method != "PUT" or wanted):
        return error(404, "NoSuchKey")
    if wanted not in (None, "*", etag):
        return error(412, "PreconditionFailed")
    if etag and unwanted in ("*", etag):
        return error(412, "PreconditionFailed") if method == "PUT" else (304, etag, b"")
    if method == "PUT":
        RECORDS[path] = body
        KEPT[path] = {name: value for name, value in headers.items() if name in KEPT_NAMES or "-meta-" in name}
        return 200, etag_of(body), b""
    if method in ("GET", "HEAD"):
        return 200, etag, stored
    return error(405, "MethodNotAllowed")
'''  # noqa: E501


@contextmanager
def serving(script: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """A fake node in this process, behind its `Handler`: its port, and the script's variables."""
    variables: dict[str, Any] = {}
    exec(RECORDS + script, variables)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), variables["Handler"]) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield server.server_address[1], variables
        finally:
            server.shutdown()
