"""The number of jobs, by how fast the work goes and how soon nodes answer."""

from __future__ import annotations

from gateway.ctl.pace import FIRST, MOST, NOTICED, REST, Pace

SOON, LATE = 0.001, 10 * NOTICED


def test_more_jobs_are_tried_while_each_step_helps_up_to_the_most() -> None:
    pace, jobs = Pace(), [FIRST]
    while jobs[-1] < MOST:
        pace.adjust(speed=2.0 ** jobs[-1], answer=SOON)
        assert pace.jobs > jobs[-1]
        jobs.append(pace.jobs)
    pace.adjust(speed=2.0**MOST, answer=SOON)
    assert pace.jobs == MOST


def test_where_more_jobs_do_not_help_there_are_as_many_as_before_for_some_time() -> None:
    pace = Pace()
    for speed in (100, 101):
        pace.adjust(speed, SOON)
    assert pace.jobs == FIRST
    for _ in range(REST):
        pace.adjust(100, SOON)
        assert pace.jobs == FIRST
    pace.adjust(100, SOON)  # another try
    assert pace.jobs > FIRST


def test_when_nodes_answer_late_there_are_fewer_jobs_and_more_again_when_they_do_not() -> None:
    pace = Pace()
    pace.adjust(100, SOON)
    more = pace.jobs
    pace.adjust(1000, LATE)
    assert pace.jobs == more // 2
    for _ in range(REST + 1):
        pace.adjust(100, SOON)
    assert pace.jobs > more // 2


def test_nodes_that_answer_late_whatever_the_work_does_do_not_hold_it_up_for_ever() -> None:
    pace, jobs = Pace(), list[int]()
    pace.adjust(100, SOON)
    for speed in range(10 * REST):
        pace.adjust(2.0**speed, LATE)
        jobs.append(pace.jobs)
    assert 1 in jobs
    assert max(jobs[jobs.index(1) :]) > FIRST


def test_an_answer_that_no_client_would_notice_takes_no_jobs_away() -> None:
    pace = Pace()
    pace.adjust(100, SOON)
    pace.adjust(1000, NOTICED)
    assert pace.jobs > FIRST


def test_there_are_never_more_jobs_than_the_operator_said() -> None:
    pace = Pace(3)
    for speed in range(1, 20):
        pace.adjust(2.0**speed, SOON)
        assert 1 <= pace.jobs <= 3
