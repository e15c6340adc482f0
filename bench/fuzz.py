#!/usr/bin/env python3
"""The fuzzer: valid requests with random damage, over raw sockets.

The gateway may refuse them, and nothing else.

    bench/fuzz.py                       # 100,000 answers, within 10 minutes; needs Docker and docker-compose
    bench/fuzz.py --seed 7 --requests 5000

Strategy. A connection carries a few requests one after the other, some of them damaged: bytes
flipped, cut out, put in or doubled, or a word put where it hurts (lengths, transfer codings, line
ends, NUL, what is too long). Then the client closes its side, so that a body which lacks its end is
no reason to wait, and reads to the end. Which requests a connection sends follows from the seed and
its number alone.

Good is: every connection ends within WAIT seconds, no status is 5xx but 501 and 505, the workers
are the same, their memory hasn't grown by more than a few MiB, the log shows no exception, and an
object stored before is what it was.
"""  # noqa: E501

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from inside import in_tests_container

if TYPE_CHECKING:
    from tests.harness.gateway import Gateway
    from tests.harness.stack import Stack

WAIT = 20.0  # seconds within which a connection must end
SECONDS = 600.0  # that a run may take
CLIENTS = 16
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
FINE = {501, 505}  # of the 5xx
GROWTH = 32 * 1024 * 1024  # bytes that a worker may have more in the end

VALID = [
    b"GET /object/fuzz1 HTTP/1.1\r\nHost: objgw\r\n\r\n",
    b"HEAD /object/fuzz1 HTTP/1.1\r\nHost: objgw\r\n\r\n",
    b"GET /object/fuzz2 HTTP/1.1\r\nHost: objgw\r\nRange: bytes=2-5\r\nIf-Range: \"0\"\r\n\r\n",
    b"GET /object/fuzz2 HTTP/1.1\r\nHost: objgw\r\nIf-None-Match: \"0\", W/\"1\"\r\n"
    b"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n\r\n",
    b"GET http://objgw:3000/object/fuzz%31?a=b HTTP/1.1\r\nHost: objgw\r\nConnection: "
        b"keep-alive\r\n\r\n",
    b"GET /object/fuzz1 HTTP/1.0\r\n\r\n",
    b"GET /objects?prefix=fuzz&after=fuzz1&limit=2 HTTP/1.1\r\nHost: objgw\r\n\r\n",
    b"GET /objects HTTP/1.1\r\nHost: objgw\r\nAccept: application/x-ndjson\r\n\r\n",
    b"DELETE /object/fuzz3 HTTP/1.1\r\nHost: objgw\r\n\r\n",
    b"PUT /object/fuzz1 HTTP/1.1\r\nHost: objgw\r\nContent-Type: "
        b"text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /object/fuzz2 HTTP/1.1\r\nHost: objgw\r\nExpect: "
        b"100-continue\r\nContent-Length: 12\r\n\r\nhello, world",
    b"PUT /object/fuzz2 HTTP/1.1\r\nHost: objgw\r\nTransfer-Encoding: "
        b"chunked\r\nTrailer: X-A\r\n\r\n"
    b"5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nX-A: b\r\n\r\n",
    b"PUT /object/fuzz3 HTTP/1.1\r\nHost: objgw\r\nIf-None-Match: *\r\nX-Amz-Meta-Color: blue\r\n"
    b"Content-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\nCache-Control: "
        b"no-store\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /object/fuzz4 HTTP/1.1\r\nHost: objgw\r\nContent-Length: "
        b"70000\r\nX-Amz-Checksum-CRC32: AAAAAA==\r\n\r\n"
    + b"x" * 70_000,
    b"POST /object/fuzz1 HTTP/1.1\r\nHost: objgw\r\nContent-Length: 3\r\n\r\na=b",
    b"OPTIONS * HTTP/1.1\r\nHost: objgw\r\n\r\n",
]  # fmt: skip
HURTS = [
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\x0b", b"\x7f", b"\x85",
    b"\xa0", b"\xc3\xa9",
    b"\xff", b":", b"::", b";", b",", b"/", b"//", b"?", b"#", b"%", b"%00", b"%0d%0a", b"%zz",
    b"..", b"*", b'"',
    b"\\", b"-", b"+", b"0", b"-1", b"00000000005", b"0x5", b"5_0", b"1e3",
    b"18446744073709551616", b"9" * 30,
    b"bytes=", b"bytes=-", b"bytes=0-0,2-3", b"bytes=9999999999999999999-", b"chunked",
    b"chunked, chunked",
    b"gzip, chunked", b"identity", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n", b"Host: a\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    b"Expect: 100-continue\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9999999.1",
    b"GET ", b"CONNECT ",
    b"\r\n folded", b"X-Amz-Meta-A: \xe2\x82\xac\r\n", b"Authorization: Bearer \xff\r\n",
    b"A" * 9000,
    b"X-A: b\r\n" * 120, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"X-Forwarded-Proto: "
        b"https\r\n", b"Script_Name: /x\r\n",
    b"ffffffffffffffff\r\n",
]  # fmt: skip


# --------------------------------------------------------------------------------------------------
# What is sent
# --------------------------------------------------------------------------------------------------
def damage(request: bytes, chance: random.Random) -> bytes:
    """The request with one to four wounds, most of them in its head."""
    data = bytearray(request)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        end = data.find(b"\r\n\r\n") + 4 if chance.random() < 0.9 else len(data)
        at = chance.randrange(max(end, 1))
        until = at + chance.choice((1, 1, 2, 8, 40))
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] = chance.randrange(256)
        elif kind == 1:
            del data[at:until]
        elif kind == 2:
            data[at:at] = data[at:until]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 8)))
        elif kind == 4:
            data[at:at] = chance.choice(HURTS)
        else:  # a word for a word
            words = list(re.finditer(rb"[^\s:,;=/]+", bytes(data[:end])))
            if words:
                word = chance.choice(words)
                data[word.start() : word.end()] = chance.choice(HURTS)
    return bytes(data)


def conversation(seed: int, number: int) -> list[bytes]:
    """What a connection sends: some requests, the damaged ones rather late, since many end the
    connection.
    """
    chance = random.Random(f"{seed}-{number}")
    count = chance.choice((1, 2, 4, 8))
    return [
        damage(request, chance) if chance.random() < (n + 1) / count else request
        for n, request in enumerate(chance.choices(VALID, k=count))
    ]


# --------------------------------------------------------------------------------------------------
# The load
# --------------------------------------------------------------------------------------------------
def talk(requests: list[bytes], port: int) -> list[int]:
    """The statuses that came back, 100 aside.

    Raises TimeoutError where the connection doesn't end.
    """
    with socket.create_connection(("127.0.0.1", port), WAIT) as sock:
        received = bytearray()
        try:
            for request in requests:
                sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
        except TimeoutError:
            raise
        except OSError:  # it has closed already
            pass
        try:
            while data := sock.recv(262_144):
                received += data
        except ConnectionResetError:
            pass
    return [int(status) for status in STATUS.findall(received) if status != b"100"]


def load(count: int, seed: int, port: int) -> dict[str, Any]:
    """Sends until so many answers came; what they were."""
    until, numbers, lock = time.monotonic() + SECONDS, itertools.count(), threading.Lock()
    statuses: Counter[int] = Counter()
    totals: Counter[str] = Counter()
    bad: list[str] = []

    def use() -> None:
        while totals["answers"] < count and time.monotonic() < until:
            with lock:
                number = next(numbers)
            requests = conversation(seed, number)
            try:
                found = talk(requests, port)
            except OSError as error:
                found = []
                bad.append(f"connection {number}: {error!r}")
            bad.extend(
                f"connection {number}: {status}"
                for status in found
                if status >= 500 and status not in FINE
            )
            with lock:
                statuses.update(found)
                totals.update(answers=len(found), connections=1, requests=len(requests))

    threads = [threading.Thread(target=use) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = {str(status): number for status, number in sorted(statuses.items())}
    return {**totals, "of each status": answers, "bad": len(bad), "first bad": bad[:10]}


def fuzz(gateway: Gateway, requests: int, seed: int) -> dict[str, Any]:
    """Damaged requests to a gateway that has a host; what came of it, `failures` empty where all is
    good.
    """
    landmark = b"what is there before is there after"
    assert gateway.put("landmark", landmark).status == 200
    gateway.load(
        "fuzz.py", "--requests", 1000, "--seed", seed + 1
    )  # so that the workers have what they need
    before, began = gateway.workers(), time.monotonic()
    report = gateway.load("fuzz.py", "--requests", requests, "--seed", seed)
    seconds, after = time.monotonic() - began, gateway.workers()
    growth = max(
        (after[id].memory - before[id].memory for id in after.keys() & before.keys()), default=0
    )
    failures = {
        "bad answers": report["bad"] > 0,
        "too few answers": report["answers"] < requests,
        "another worker": before.keys() != after.keys(),
        "memory": growth > GROWTH,
        "an exception in the log": "Traceback" in gateway.logs(),
        "the landmark": gateway.get("landmark").body != landmark,
    }
    return {
        "seed": seed,
        **report,
        "seconds": round(seconds),
        "growth of a worker in MiB": round(growth / 2**20, 1),
        "failures": [name for name, failed in failures.items() if failed],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("role", nargs="?", choices=["load"], help="only the requests, to 127.0.0.1")
    parser.add_argument("--requests", type=int, default=100_000, help="answers to get")
    parser.add_argument("--seed", type=int, default=random.randrange(2**24))
    parser.add_argument(
        "--connection", type=int, help="only show what this connection of the seed sends"
    )
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    if given.connection is not None:
        print(*map(repr, conversation(given.seed, given.connection)), sep="\n")
        return
    if given.role == "load":
        print(json.dumps(load(given.requests, given.seed, given.port)))
        return
    with in_tests_container(__file__) as stack:
        report = run(stack, given.requests, given.seed)
        print(json.dumps(report, indent=2))
    raise SystemExit(bool(report["failures"]))


def run(stack: Stack, requests: int, seed: int) -> dict[str, Any]:
    host = stack.add_host()
    stack.add_nodes("123")
    gateway = stack.add_gateway({"WEB_CONCURRENCY": "2"}, beside=host)
    gateway.wait_ready()
    return fuzz(gateway, requests, seed)


if __name__ == "__main__":
    main()
