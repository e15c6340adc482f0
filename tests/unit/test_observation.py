"""A request as an outsider sees it: what is counted of it, once, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from gateway.answers import Answer
from gateway.status.observation import NO_NODE, Observation, ObservedBody
from gateway.status.traceparent import Passed, TraceContext


class Book:
    """Writes down what observations tell."""

    def __init__(self) -> None:
        self.counts: list[str] = []  # the statuses that were counted
        self.ends: list[tuple[str, str, str, int, bool]] = []  # what was logged
        self.retries: list[str] = []
        self.failures: list[str] = []

    def counted(self, observation: Observation, seconds: float) -> None:
        assert seconds >= 0
        self.counts.append(observation.status)

    def logged(self, observation: Observation, seconds: float, complete: bool) -> None:
        assert seconds >= 0
        self.ends.append(
            (
                observation.method,
                observation.node,
                observation.status,
                observation.bytes,
                complete,
            )
        )

    def retried(self, node: str) -> None:
        self.retries.append(node)

    def failed(self, node: str) -> None:
        self.failures.append(node)


@pytest.fixture
def book() -> Book:
    return Book()


def answer(body: Iterable[bytes], status: str = "200 OK", length: int | None = None) -> Answer:
    return Answer(status, [] if length is None else [("Content-Length", str(length))], body)


def test_an_answer_that_is_whole_is_counted_before_it_is_sent(book: Book) -> None:
    observation = Observation(book, "GET", "/object/a", "id-1")
    observation.asks("node-1", 0, 0)
    sent = observation.end(answer([b"not ", b"found"], "404 Not Found"))
    assert ("X-Request-Id", "id-1") in sent.headers
    assert book.ends == [("GET", "node-1", "404", 9, True)]


def test_of_an_upload_the_bytes_that_it_stores_are_counted(book: Book) -> None:
    observation = Observation(book, "PUT", "/object/a")
    observation.asks("node-1", 0, 1234)
    observation.end(answer([]))
    assert book.ends == [("PUT", "node-1", "200", 1234, True)]


def test_a_request_that_got_to_no_node_says_so(book: Book) -> None:
    Observation(book, "GET").end(answer([], "400 Bad Request"))
    assert book.ends == [("GET", NO_NODE, "400", 0, True)]


def test_what_is_about_the_gateway_itself_is_not_counted_and_has_an_id(book: Book) -> None:
    observation = Observation(book, "GET", "/health", "id-2")
    observation.counted = False
    assert ("X-Request-Id", "id-2") in observation.end(answer([b"ok"])).headers
    assert book.ends == []


@pytest.mark.parametrize(("upstream", "said"), [(0.0, None), (0.0123, "upstream;dur=12.3")])
def test_the_time_of_the_node_is_told_where_one_was_asked(
    book: Book, upstream: float, said: str | None
) -> None:
    observation = Observation(book, "GET")
    observation.upstream = upstream
    assert dict(observation.end(answer([])).headers).get("Server-Timing") == said


def test_only_another_attempt_is_a_retry_and_each_failure_is_told(book: Book) -> None:
    observation = Observation(book, "GET")
    observation.asks("node-1", 0, 0)
    assert book.retries == []
    observation.failed("node-1")
    observation.asks("node-2", 1, 0)
    assert (book.retries, book.failures) == (["node-2"], ["node-1"])
    assert observation.node == "node-2"


def test_a_download_is_counted_before_its_last_block_goes_out_and_only_once(book: Book) -> None:
    observation = Observation(book, "GET")
    body = observation.end(answer(iter([b"12345", b"678"]), length=8)).body
    assert isinstance(body, ObservedBody)
    assert next(body) == b"12345"
    assert book.counts == []
    assert next(body) == b"678"
    assert book.counts == ["200"]
    assert list(body) == []
    assert book.ends == []  # until it is known what the client has
    body.close()
    body.close()
    assert book.counts == ["200"]
    assert book.ends == [("GET", NO_NODE, "200", 8, True)]


def test_a_download_that_ends_early_is_counted_with_what_was_sent_and_not_as_complete(
    book: Book,
) -> None:
    closed = list[bool]()

    def blocks() -> Iterator[bytes]:
        try:
            yield b"12345"
            yield b"678"
        finally:
            closed.append(True)

    body = Observation(book, "GET").end(answer(blocks(), length=8)).body
    assert isinstance(body, ObservedBody)
    next(body)
    body.close()
    assert book.ends == [("GET", NO_NODE, "200", 5, False)]
    assert closed == [True]


def test_a_body_without_a_length_is_counted_before_its_end_and_complete_with_it(
    book: Book,
) -> None:
    for blocks, delivered in ((2, 8), (2, 5), (1, 5)):
        book.counts.clear()
        book.ends.clear()
        given = Answer("200 OK", [], iter([b"12345", b"678"]))
        body = Observation(book, "GET").end(given, partial(int, delivered)).body
        assert isinstance(body, ObservedBody)
        for _ in range(blocks):
            next(body)
        assert book.counts == []
        if blocks == 2:
            assert list(body) == []
            assert book.counts == ["200"]
        body.close()
        assert book.counts == ["200"]
        assert book.ends == [("GET", NO_NODE, "200", delivered, delivered == 8)]


def test_a_part_is_told_as_the_request_and_leaves_its_own_alone(book: Book) -> None:
    observation = Observation(book, "GET", "/objects", "id-3")
    observation.trace = trace = Passed(TraceContext("4b" * 16, "02" * 8, 1, ""))
    part = observation.part()
    assert part.trace is trace
    part.asks("node-1", 1, 7)
    part.failed("node-1")
    assert (book.retries, book.failures) == (["node-1"], ["node-1"])
    assert (observation.node, observation.bytes, part.request_id) == (NO_NODE, 0, "id-3")


def test_the_body_of_a_head_is_no_download(book: Book) -> None:
    Observation(book, "HEAD").end(answer([], length=1000))
    assert book.ends == [("HEAD", NO_NODE, "200", 0, True)]


def test_without_anybody_to_tell_it_goes_on() -> None:
    observation = Observation()
    observation.asks("node-1", 1, 0)
    observation.failed("node-1")
    assert observation.end(answer([b"x"])).body == [b"x"]
