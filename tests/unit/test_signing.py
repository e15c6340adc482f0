"""Signatures (SigV4) of what goes to the nodes, beside those of botocore, of minio-py and of AWS's
own examples.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import io
import re
import string
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given, strategies
from minio.credentials.credentials import Credentials as MinioCredentials
from minio.signer import sign_v4_s3

from gateway.s3.body import Upload
from gateway.s3.connection import Request
from gateway.s3.endpoint import Endpoint
from gateway.s3.signing import Signer

Headers = dict[str, str]
DIGEST = "x-amz-content-sha256"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing


# --------------------------------------------------------------------------------------------------
# Requests to be signed
# --------------------------------------------------------------------------------------------------
def bounded(alphabet: str, least: int = 0, most: int = 40) -> strategies.SearchStrategy[str]:
    return strategies.text(alphabet, min_size=least, max_size=most)


PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))
LATIN_1 = "".join(chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100)))
UNRESERVED = string.ascii_letters + string.digits

records = strategies.builds(
    Endpoint,
    name=strategies.just("node"),
    container=strategies.just("0"),
    host=strategies.ip_addresses(v=4).map(str),
    port=strategies.integers(1, 65535),
    access_key=bounded(UNRESERVED + "-_.", 3, 20),
    secret_key=strategies.text(min_size=8, max_size=40).filter(lambda key: key.isprintable()),
    region=strategies.sampled_from(["us-east-1", "eu-central-1", "local"]),
    hostname=strategies.just(""),
)
moments = strategies.integers(946684800, 4102444800)  # 2000 to 2100
paths = bounded(UNRESERVED, 1).map(lambda id: f"/objgw/{id}")
queries = strategies.dictionaries(
    bounded(UNRESERVED + "-", 1, 12), bounded(PRINTABLE + " ", 0, 12), max_size=4
).map(lambda query: "&".join(f"{name}={quote(query[name], safe='-_.~')}" for name in sorted(query)))
targets = strategies.builds(
    lambda path, query: f"{path}?{query}" if query else path, paths, queries
)
blank = strategies.sampled_from([" ", "  ", "   "])
words = strategies.lists(bounded(PRINTABLE, 1, 8), max_size=4)


@strategies.composite
def spaced(draw: strategies.DrawFn) -> str:
    """ASCII words with blanks between them and around."""
    return "".join(word + draw(blank) for word in ["", *draw(words)])


signed_names = strategies.sampled_from(
    [
        "x-amz-checksum-crc32",
        "x-amz-checksum-sha256",
        "x-amz-checksum-crc64nvme",
        "x-amz-meta-a",
        "x-amz-meta-objgw-e",
    ]
) | bounded(string.ascii_lowercase + string.digits + "-.", 1, 10).map(
    lambda rest: f"x-amz-meta-{rest}"
)
unsigned_names = strategies.sampled_from(
    [
        "cache-control",
        "content-disposition",
        "content-md5",
        "content-type",
        "expires",
        "if-none-match",
        "range",
    ]
)
kept = strategies.builds(
    lambda signed, unsigned, digest: {**signed, **unsigned, **({DIGEST: digest} if digest else {})},
    strategies.dictionaries(signed_names, spaced(), max_size=4),
    strategies.dictionaries(unsigned_names, bounded(LATIN_1 + " \t"), max_size=4),
    strategies.none() | strategies.binary(min_size=32, max_size=32).map(bytes.hex),
)
bodies = strategies.none() | strategies.sampled_from([0, 1, 70_000])


# --------------------------------------------------------------------------------------------------
# What goes out, and what the others make of it
# --------------------------------------------------------------------------------------------------
def head_of(signer: Signer, request: Request, moment: int) -> bytes:
    """The request line and headers that the node is sent at a moment (seconds since 1970)."""
    with mock.patch("time.time", return_value=moment + 0.9):
        return signer.head(request)


def parsed(head: bytes) -> tuple[str, Headers]:
    """The request line, and the headers; no name may come twice."""
    line, *fields = head.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    pairs = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    assert len(dict(pairs)) == len(pairs)
    return line, dict(pairs)


def signed_part(headers: Headers) -> Headers:
    """The headers that the signature says it covers. S3 wants the host and all of its own."""
    names = re.findall(r"SignedHeaders=([^,]+),", headers["authorization"])[0].split(";")
    assert names == sorted(name for name in headers if name == "host" or name.startswith("x-amz-"))
    return {name: headers[name] for name in names}


def botocores(record: Endpoint, method: str, target: str, headers: Headers, moment: int) -> str:
    request = AWSRequest(method, f"http://{headers['host']}{target}", dict(headers))
    signer = botocore.auth.S3SigV4Auth(
        BotocoreCredentials(record.access_key, record.secret_key), "s3", record.region
    )
    signer.payload = lambda _request: headers[DIGEST]  # it would hash a body
    now = datetime.fromtimestamp(moment, UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        signer.add_auth(request)
    return str(request.headers["Authorization"])


def minios(record: Endpoint, method: str, target: str, headers: Headers, moment: int) -> str:
    signed = sign_v4_s3(
        method=method,
        url=urlsplit(f"http://{headers['host']}{target}"),
        region=record.region,
        headers=dict(headers),
        credentials=MinioCredentials(record.access_key, record.secret_key),
        content_sha256=headers[DIGEST],
        date=datetime.fromtimestamp(moment, UTC),
    )
    return str(signed["Authorization"])


@given(
    record=records,
    calls=strategies.lists(
        strategies.tuples(
            moments,
            strategies.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"]),
            targets,
            kept,
            bodies,
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_every_request_is_signed_as_botocore_and_minio_py_sign_it(
    record: Endpoint, calls: list[tuple[int, str, str, Headers, int | None]]
) -> None:
    signer = Signer(record)
    for (
        moment,
        method,
        target,
        headers,
        size,
    ) in calls:  # one signer: what it keeps of the day mustn't outlive it
        upload = None if size is None else Upload(io.BytesIO(bytes(size)), size)
        line, sent = parsed(head_of(signer, Request(method, target, headers, upload), moment))
        assert line == f"{method} {target} HTTP/1.1"
        assert headers.items() <= sent.items()
        assert sent["x-amz-date"] == f"{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%SZ}"
        assert sent[DIGEST] == headers.get(DIGEST, "UNSIGNED-PAYLOAD")
        for sign in (botocores, minios):
            assert sent["authorization"] == sign(record, method, target, signed_part(sent), moment)


@given(
    record=records,
    moment=moments,
    method=strategies.sampled_from(["GET", "HEAD", "DELETE"]),
    path=paths,
)
def test_a_request_without_headers_is_signed_like_every_other(
    record: Endpoint, moment: int, method: str, path: str
) -> None:
    """It takes a shorter way, on which most is made once a second."""
    _, sent = parsed(head_of(Signer(record), Request(method, path, request_id="abc"), moment))
    assert sent.pop("x-request-id") == "abc"
    for sign in (botocores, minios):
        assert sent["authorization"] == sign(record, method, path, signed_part(sent), moment)


@pytest.mark.parametrize(
    ("upload", "headers"),
    [(None, {}), (None, {"range": "bytes=0-4"}), (Upload(io.BytesIO(b"x"), 1), {})],
)
def test_what_is_for_a_trace_is_sent_and_not_signed(
    upload: Upload | None, headers: dict[str, str]
) -> None:
    trace = "traceparent: 00-1-2-01\r\ntracestate: a=1\r\n"
    request = Request("GET", "/objgw/abc", headers, upload, "abc")
    with_it = head_of(example_signer(), request._replace(trace=trace), EXAMPLE_MOMENT)
    without = head_of(example_signer(), request, EXAMPLE_MOMENT)
    assert with_it == without.removesuffix(b"\r\n") + trace.encode() + b"\r\n"


@given(record=records, moment=moments, value=bounded(PRINTABLE + " \t"))
def test_tabs_in_a_signed_value_are_blanks_as_botocore_takes_them(
    record: Endpoint, moment: int, value: str
) -> None:
    """MinIO's server takes them so too (`signV4TrimAll` is Go's `strings.Fields`); minio-py leaves
    them as they are.
    """
    request = Request("PUT", "/objgw/a", {"x-amz-meta-a": value}, Upload(io.BytesIO(), 0))
    _, sent = parsed(head_of(Signer(record), request, moment))
    assert sent["authorization"] == botocores(record, "PUT", "/objgw/a", signed_part(sent), moment)


# --------------------------------------------------------------------------------------------------
# AWS's examples: their keys, their day, what they say comes out
# --------------------------------------------------------------------------------------------------
EXAMPLE = Endpoint(
    "node",
    "0",
    "0",
    80,
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "us-east-1",
)
EXAMPLE_MOMENT = 1369353600  # 20130524T000000Z
# The SHA-256 of the canonical request, and the signature.
EXAMPLES = {
    "GET object": (
        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "PUT object": (
        "9e0e90d9c76de8fa5b200d8c849cd5b8dc7a3be3951ddb7f6a76b4158342019d",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "GET bucket lifecycle": (
        "9766c798316ff2757b517bc739a67f6213b4ab36dd5da2f94eaebf79c77395ca",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "GET bucket (list objects)": (
        "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


def example_signer() -> Signer:
    signer = Signer(EXAMPLE)
    signer._authority = "examplebucket.s3.amazonaws.com"  # a node's own has a port
    return signer


@pytest.mark.parametrize("row", EXAMPLES)
def test_a_canonical_request_of_awss_examples_has_their_signature(row: str) -> None:
    digest, signature = EXAMPLES[row]
    signer = example_signer()
    head_of(signer, Request("GET", "/"), EXAMPLE_MOMENT)  # sets the time
    assert signer._sign(digest) == signature


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ("GET bucket lifecycle", "/?lifecycle="),
        ("GET bucket (list objects)", "/?max-keys=2&prefix=J"),
    ],
)
def test_a_request_of_awss_examples_has_their_signature(row: str, target: str) -> None:
    """The two that sign no other headers than the gateway does: not Range, not Date."""
    _, sent = parsed(
        head_of(example_signer(), Request("GET", target, {DIGEST: EMPTY}), EXAMPLE_MOMENT)
    )
    assert sent["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={EXAMPLES[row][1]}"
    )


def test_a_key_that_is_not_ascii_goes_out_as_the_utf_8_that_its_server_was_given() -> None:
    endpoint = Endpoint(
        "node", "0", "fd00::7", 9000, "gr\u00fcn-\u9375", "geheim-\u9375-\U0001f511"
    )
    for headers in ({}, {"x-amz-meta-a": "b"}):
        head = head_of(Signer(endpoint), Request("GET", "/objgw/abc", headers), 1_700_000_000)
        assert "Credential=gr\u00fcn-\u9375/20231114/us-east-1/s3/aws4_request," in head.decode()
        assert b"\r\nhost: [fd00::7]:9000\r\n" in head
