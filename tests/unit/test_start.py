"""A start that can't succeed: one plain line says why, it isn't 0, and nothing is left behind."""

from __future__ import annotations

import ast
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from gunicorn.config import Config

from gateway.ctl.memory import end, start
from gateway.server.start import tls_context
from gateway.settings import SettingsError
from tests.harness.certificates import make_certificate
from tests.harness.engine import CHECKOUT
from tests.harness.waiting import eventually

FIRST_READ = ["objgw.py", "objgwctl.py", "gunicorn.conf.py", "gateway/__init__.py"]


@pytest.fixture(autouse=True)
def nothing_left(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Nothing is left in memory or in the temporary folder.

    What another test's gateway has in memory meanwhile goes with it; what is left stays.
    """
    temporary, memory = tmp_path_factory.mktemp("temporary"), Path("/dev/shm")
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = {*memory.glob("*objgw*")}
    yield
    assert [*temporary.iterdir()] == []
    left = {*memory.glob("*objgw*")} - before
    eventually(lambda: not any(each.exists() for each in left), within=180)


def gunicorn(
    *arguments: str, folder: Path = CHECKOUT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """gunicorn's run to its end, with these arguments, in this folder."""
    env = {**os.environ, "WEB_CONCURRENCY": "1", "OBJGW_USER": "", **variables}
    command = [sys.executable, "-m", "gunicorn", *arguments, "objgw:app"]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why it ended."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("objgw: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = told(gunicorn("-b", f"127.0.0.1:{port}"))
    assert line == f"objgw: it can't listen on 127.0.0.1:{port}: Address already in use"


def test_a_start_in_another_folder_says_where_to_start(tmp_path: Path) -> None:
    done = gunicorn("-b", "127.0.0.1:0", folder=tmp_path, PYTHONPATH=str(CHECKOUT))
    line = told(done)
    assert "gunicorn.conf.py" in line
    assert str(CHECKOUT) in line


@pytest.mark.parametrize("started", FIRST_READ[:3])
def test_an_older_python_is_told_which_one_is_needed(started: str) -> None:
    script = (
        "import runpy, sys; sys.version_info = (3, 12, 9, 'final', 0); runpy.run_path(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, started],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told(done) == "objgw: it needs Python 3.13 or newer, and this is 3.12"


@pytest.mark.parametrize("started", FIRST_READ)
def test_an_older_python_can_read_what_it_reads_first(started: str) -> None:
    ast.parse((CHECKOUT / started).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("setting", ["certfile", "keyfile"])
def test_a_file_of_tls_that_can_not_be_read_is_named(tmp_path: Path, setting: str) -> None:
    certificate, key = make_certificate(tmp_path)
    gone = certificate if setting == "certfile" else key
    gone.unlink()
    line = told(
        gunicorn("-b", "127.0.0.1:0", "--certfile", str(certificate), "--keyfile", str(key))
    )
    assert line == f"objgw: {setting} {gone} can't be read: No such file or directory"


def test_a_setting_of_gunicorn_that_nobody_carries_out_stops_the_start() -> None:
    line = told(gunicorn("-b", "127.0.0.1:0", "--max-requests", "1000"))
    assert line.startswith("objgw: max_requests isn't carried out")


class Running:
    """A gunicorn with one worker, a certificate and a file of tokens; what it logs."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = make_certificate(folder)
        self.trusted = self.certificate.read_text()
        self.tokens, self.log = folder / "tokens", folder / "log"
        self.tokens.write_text("secret")
        tls = ("--certfile", str(self.certificate), "--keyfile", str(self.key))
        options = ["-b", "127.0.0.1:0", *tls, "objgw:app"]
        env = {"WEB_CONCURRENCY": "1", "OBJGW_USER": "", "OBJGW_TOKENS_FILE": str(self.tokens)}
        with self.log.open("w") as log:
            self.process = start(options, CHECKOUT, env=env, errors=log.fileno())

    def times(self, text: str) -> int:
        """How often the log has this."""
        return self.log.read_text().count(text)

    def workers(self) -> list[int]:
        """The ids of the workers' processes, the first one first, also of those that have ended."""
        return list(map(int, re.findall(r"Booting worker with pid: (\d+)", self.log.read_text())))

    def status(self) -> int:
        """The answer to a GET without a token."""
        found = re.search(r"Listening at: https://127\.0\.0\.1:(\d+)", self.log.read_text())
        assert found
        context = ssl.create_default_context(cadata=self.trusted)
        context.check_hostname = False
        client = http.client.HTTPSConnection(
            "127.0.0.1", int(found[1]), timeout=20, context=context
        )
        with closing(client):
            client.request("GET", "/object/id")
            return client.getresponse().status


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """It has a worker, which may not serve yet. In the end it stops when it is told to."""
    running = Running(tmp_path)
    try:
        eventually(running.workers)
        yield running
        running.process.terminate()
        assert running.process.wait(60) == 0
    finally:
        end(running.process)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heard_while_a_worker_starts(running: Running, stop: signal.Signals) -> None:
    running.process.send_signal(stop)
    assert running.process.wait(20) == 0


@pytest.mark.parametrize("spoilt", ["tokens", "certificate", "key"])
def test_a_reload_with_a_file_that_can_not_be_used_is_refused(
    running: Running, spoilt: str
) -> None:
    file: Path = getattr(running, spoilt)
    why = {
        "tokens": "the file of OBJGW_TOKENS_FILE has nothing but blanks",
        "certificate": f"certfile {file} can't be used",
        "key": f"keyfile {file} can't be used",
    }[spoilt]
    usable = file.read_text()
    file.write_text(" ")
    running.process.send_signal(signal.SIGHUP)
    eventually(running.times, f"not reloaded, and all stays as it is: {why}")
    assert (running.times("Hang up"), len(running.workers())) == (0, 1)
    file.write_text(usable)
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(running.workers()) == 2)


@pytest.mark.parametrize("spoilt", ["tokens", "certificate", "key"])
def test_a_worker_that_is_replaced_goes_by_what_the_others_have(
    running: Running, spoilt: str
) -> None:
    getattr(running, spoilt).write_text(" ")
    os.kill(running.workers()[0], signal.SIGKILL)
    eventually(lambda: len(running.workers()) == 2)
    assert eventually(running.status) == 401
    assert len(running.workers()) == 2


def test_each_thing_that_can_be_wrong_with_tls_is_told_with_its_file(tmp_path: Path) -> None:
    certificate, key = map(str, make_certificate(tmp_path))
    _, other = map(str, make_certificate(tmp_path, "other"))
    _, locked = map(str, make_certificate(tmp_path, "locked", "-passout", "pass:secret"))
    garbage = tmp_path / "garbage"
    garbage.write_text("no certificate")
    both = tmp_path / "both"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())

    def context(certfile: str | None, keyfile: str | None, **more: object) -> object:
        cfg = Config()
        for name, value in {"certfile": certfile, "keyfile": keyfile, **more}.items():
            cfg.set(name, value)
        return tls_context(cfg)

    assert context(None, None) is None
    assert context(certificate, key)
    assert context(str(both), None, ca_certs=certificate, cert_reqs=2, ciphers="HIGH")
    wrong: list[tuple[str | None, str | None, dict[str, object], str]] = [
        (str(garbage), key, {}, f"certfile {garbage} "),
        (certificate, str(garbage), {}, f"keyfile {garbage} "),
        (certificate, None, {}, f"keyfile {certificate} "),
        (None, key, {}, f"keyfile {key} needs a certfile"),
        (certificate, other, {}, f"keyfile {other} "),
        (certificate, locked, {}, f"keyfile {locked} "),
        (str(tmp_path), key, {}, f"certfile {tmp_path} can't be read: Is a directory"),
        (certificate, key, {"ca_certs": str(garbage)}, f"ca_certs {garbage} can't be used: "),
        (certificate, key, {"ciphers": "nonsense"}, "ciphers nonsense can't be used: No cipher"),
        (certificate, key, {"cert_reqs": 7}, "cert_reqs 7 can't be used: "),
    ]
    for certfile, keyfile, more, names in wrong:
        with pytest.raises(SettingsError) as refused:
            context(certfile, keyfile, **more)
        assert names in str(refused.value)
        assert "\n" not in str(refused.value)
