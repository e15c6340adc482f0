"""The layout's record on a node: reading it, changing it, and who decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from gateway.nodes.layout import Layout
from gateway.nodes.record_json import dump
from gateway.nodes.store import (
    NO_RECORD,
    Record,
    UnexpectedAnswer,
    compare_and_swap,
    may_take,
    read_object,
    read_record,
    write_record,
    writing_order,
)
from gateway.s3.connection import Request
from gateway.s3.reply import Reply

BUCKET = "objgw-layout"
LAYOUT = Layout.first(["a", "b"], unrecorded=["a", "b"])


def failure(status: int, code: str = "") -> Reply:
    return Reply(status, {}, f"<Error><Code>{code}</Code></Error>".encode() if code else b"", 0)


class Shelf:
    """The small objects of a server of S3, which decides conditions."""

    def __init__(self, missing: str = "NoSuchKey") -> None:
        self.objects: dict[str, bytes] = {}
        self.buckets: set[str] = {f"/{BUCKET}"}
        self.asked: list[Request] = []
        self.missing = missing  # what a PUT with If-Match says where there is no object

    def etag(self, path: str) -> str:
        body = self.objects.get(path)
        return f'"{hashlib.md5(body).hexdigest()}"' if body is not None else ""

    def ask(self, request: Request) -> Reply:
        self.asked.append(request)
        method, path, headers, upload, *_ = request
        etag = self.etag(path)
        if method == "PUT" and path.count("/") == 1:
            self.buckets.add(path)
            return Reply(200, {}, b"", 0)
        if path.rpartition("/")[0] not in self.buckets:
            return failure(404, "NoSuchBucket")
        if method == "GET":
            if not etag:
                return failure(404, "NoSuchKey")
            same = headers.get("if-none-match") == etag
            body = b"" if same else self.objects[path]
            return Reply(304 if same else 200, {"etag": etag}, body, 0)
        if "if-match" in headers and not etag and self.missing:
            return failure(404, self.missing)
        if headers.get("if-match", etag) != etag or ("if-none-match" in headers and etag):
            return failure(412, "PreconditionFailed")
        assert upload
        self.objects[path] = upload.head
        return Reply(200, {"etag": self.etag(path)}, b"", 0)


def answering(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _: reply


def test_a_record_is_read_as_it_was_written_with_its_holder_and_etag() -> None:
    shelf = Shelf()
    etag = write_record(shelf.ask, BUCKET, "a", LAYOUT, "")
    record = read_record(shelf.ask, BUCKET)
    assert record == Record(LAYOUT, "a", etag or "?")
    assert (record.own("a"), record.trouble("a")) == (LAYOUT, "")
    assert (record.own("b"), record.trouble("b")) == (None, "it holds what belongs to a")


def test_a_record_that_has_not_changed_is_304_and_one_that_has_is_read() -> None:
    shelf = Shelf()
    write_record(shelf.ask, BUCKET, "a", LAYOUT, "")
    record = read_record(shelf.ask, BUCKET)
    assert read_record(shelf.ask, BUCKET, record) is record
    assert shelf.asked[-1].headers == {"if-none-match": record.etag}
    newer = LAYOUT.joined(["c"], 100.0)
    write_record(shelf.ask, BUCKET, "a", newer, record.etag)
    assert read_record(shelf.ask, BUCKET, record).layout == newer


def test_a_record_is_of_a_layout_that_it_is_an_older_one_of_and_of_no_other_beginning() -> None:
    record = Record(LAYOUT, "a", '"e"')
    assert record.is_of("a", LAYOUT)
    assert record.is_of("a", LAYOUT.joined(["c"], 100.0))
    assert not record.is_of("b", LAYOUT)
    assert not record.is_of("a", Layout.first(["a", "b"]))
    assert not NO_RECORD.is_of("a", LAYOUT)


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchBucket"])
def test_no_record_is_what_a_server_of_s3_says_with_a_code(code: str) -> None:
    assert read_record(answering(failure(404, code)), BUCKET) == NO_RECORD
    assert (NO_RECORD.own("a"), NO_RECORD.own(""), NO_RECORD.trouble("a")) == (None, None, "")


NOT_S3 = {
    "a web server's 404": failure(404),
    "304 without a condition": Reply(304, {}, b"", 0),
    "no content": Reply(204, {}, b"", 0),
    "refused": failure(403, "AccessDenied"),
    "starting": failure(503, "SlowDown"),
}


@pytest.mark.parametrize("answer", NOT_S3.values(), ids=NOT_S3)
def test_an_answer_that_says_nothing_of_a_record_is_an_error_with_the_answer(answer: Reply) -> None:
    with pytest.raises(UnexpectedAnswer) as raised:
        read_record(answering(answer), BUCKET)
    assert raised.value.reply is answer


@pytest.mark.parametrize("body", [b"", b"hello", b"{}", b"[]", b"null", b'{"node": "a"}'])
def test_what_is_no_record_has_a_problem_and_its_etag_and_is_nobodys(body: bytes) -> None:
    record = read_record(answering(Reply(200, {"etag": '"e"'}, body, 0)), BUCKET)
    assert (record.layout, record.etag, record.own("a")) == (None, '"e"', None)
    assert record.trouble("a").startswith("its record can't be read: ")


def test_a_record_without_an_etag_has_a_problem() -> None:
    record = read_record(answering(Reply(200, {}, dump(LAYOUT, "a"), 0)), BUCKET)
    assert record.own("a") is None
    assert "no ETag" in record.trouble("a")


@pytest.mark.parametrize("missing", ["NoSuchKey", ""])
def test_of_two_who_change_what_they_have_read_at_once_one_writes(missing: str) -> None:
    shelf, path = Shelf(missing), f"/{BUCKET}/lock"
    created = [compare_and_swap(shelf.ask, path, body, "") for body in (b"one", b"two")]
    assert (created, shelf.objects[path]) == ([shelf.etag(path), None], b"one")
    seen = created[0] or "?"
    swapped = [compare_and_swap(shelf.ask, path, body, seen) for body in (b"three", b"four")]
    assert (swapped, shelf.objects[path]) == ([shelf.etag(path), None], b"three")
    del shelf.objects[path]
    assert compare_and_swap(shelf.ask, path, b"five", shelf.etag(path) or seen) is None
    assert read_object(shelf.ask, path) is None


def test_compare_and_swap_makes_the_bucket_where_it_is_not_there() -> None:
    shelf = Shelf()
    shelf.buckets.clear()
    path = f"/{BUCKET}/lock"
    assert compare_and_swap(shelf.ask, path, b"one", "") == shelf.etag(path)
    assert [request.path for request in shelf.asked] == [path, f"/{BUCKET}", path]


@pytest.mark.parametrize(
    "answer",
    [failure(500), failure(404), failure(507), Reply(200, {}, b"", 0)],
    ids=lambda reply: reply.status,
)
def test_compare_and_swap_of_which_nobody_knows_whether_it_took_effect_is_an_error(
    answer: Reply,
) -> None:
    with pytest.raises(UnexpectedAnswer):
        compare_and_swap(answering(answer), f"/{BUCKET}/lock", b"one", "")


OWN, ELSE, BROKEN = Record(LAYOUT, "a", '"1"'), Record(LAYOUT, "b", '"1"'), Record(problem="broken")
MAY_TAKE = [
    ("a", OWN, LAYOUT, True),
    ("a", OWN, LAYOUT.known(["a", "b"]), True),
    ("a", NO_RECORD, LAYOUT, True),
    ("a", NO_RECORD, LAYOUT.known(["a", "b"]), False),  # it lost what it held
    ("a", ELSE, LAYOUT, False),
    ("a", BROKEN, LAYOUT, False),
    ("c", NO_RECORD, LAYOUT, False),
    ("c", NO_RECORD, LAYOUT, False),  # it isn't in the layout
    ("c", NO_RECORD, LAYOUT.joined(["c"], 1.0), True),
    ("a", OWN, LAYOUT.without(["a"], 1.0), True),  # it is being drained
    ("a", OWN, LAYOUT.without(["a"], 1.0, lost=True), False),
]


@pytest.mark.parametrize(("name", "record", "layout", "expected"), MAY_TAKE)
def test_a_node_takes_a_layout_that_has_its_name_if_it_has_a_record_or_never_had_one(
    name: str, record: Record, layout: Layout, expected: bool
) -> None:
    assert may_take(name, record, layout) is expected


def test_who_changes_the_same_layout_asks_the_same_node_first_whatever_is_added() -> None:
    old = Layout.first(["b", "c"], unrecorded=["b", "c"])
    records = dict.fromkeys(("d", "c", "b", "a"), NO_RECORD)
    assert writing_order(records, old, old.joined(["a"], 1.0)) == ["b", "c", "a"]
    assert writing_order(records, old, old.joined(["d"], 1.0)) == ["b", "c", "d"]
    assert writing_order(records, None, old) == ["b", "c"]
    assert writing_order({}, old, old) == []
