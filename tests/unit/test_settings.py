"""Settings: what can't be used stops the start with one line that says why."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import ssl
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.settings import Settings, read_or_exit
from tests.harness.engine import CHECKOUT, MINIO

WRONG_SETTINGS = {
    "OBJGW_NODE_PORT": ("abc", "0", "-1", "65536", "9000.5"),
    "OBJGW_BUCKET": ("No", "a", "has space", "x" * 64, "../up"),
    "OBJGW_DISCOVERY_SECONDS": ("soon", "-1", "0", "nan", "inf"),
    "OBJGW_DOCKER_TIMEOUT": ("0",),
    "OBJGW_CONNECT_TIMEOUT": ("x",),
    "OBJGW_NODE_TIMEOUT": ("-5",),
    "OBJGW_CLIENT_TIMEOUT": ("nan",),
    "OBJGW_LOG_FORMAT": ("xml",),
    "OBJGW_ACCESS_LOG": ("yes",),
    "OBJGW_PAGE": ("0",),
    "OBJGW_NODES": ("a", "a=store:9000", "a=http://store:9000"),
    "OBJGW_NODES_CA": ("/etc/ssl/cert.pem", "-----BEGIN CERTIFICATE-----"),
    "OBJGW_TOKENS": (" ", "\t\n", "first,second", '"first"', "first seco=nd", "naïve"),
    "OBJGW_READ_TOKENS": ("  ", "'first'"),
    "OBJGW_LINK_KEY": (" ", "x" * 31, f"{'x' * 32} short", f'"{"x" * 32}"', "naïve" * 7),
    "OBJGW_CORS_ORIGINS": (
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?x",
        "app.example",
        "//app.example",
        "https://",
        "https://App.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "http://app.example:",
        "http://app.example:080",
        "https://*.example",
        "https://user@app.example",
        "https://bücher.example",
        "https://app.example,https://other.example",
        "https://app.example *",
        "null",
        "**",
    ),
}

# Variables that are no settings, and those that are meant.
MISSPELT = {
    "OBJGW_TOKEN": "OBJGW_TOKENS",
    "OBJGW_READ_TOKEN": "OBJGW_READ_TOKENS",
    "OBJGW_TOKEN_FILE": "OBJGW_TOKENS_FILE",
    "OBJGW_TOKENS_FIEL": "OBJGW_TOKENS_FILE",
    "OBJGW_TOKENS_": "OBJGW_TOKENS",
    "OBJGW_READTOKENS": "OBJGW_READ_TOKENS",
    "OBJGW_MAX_BYTES": "OBJGW_MAX_OBJECT_BYTES",
    "OBJGW__PAGE": "OBJGW_PAGE",
    "OBJGWTOKENS": "OBJGW_TOKENS",
    "objgw_tokens": "OBJGW_TOKENS",
    "Objgw_Tokens_File": "OBJGW_TOKENS_FILE",
}

STOPPED = 4  # gunicorn's APP_LOAD_ERROR


def python(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Python makes of the script with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OBJGW_")}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=CHECKOUT, env=clean | env, capture_output=True, text=True)


def system_certificate() -> bytes:
    """A certificate that the system trusts (DER)."""
    return ssl.create_default_context().get_ca_certs(binary_form=True)[0]


def assert_stops(env: dict[str, str], *named: str) -> str:
    """The start stops with one line, which names these; the line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OBJGW_")}
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, clean | env, clear=True),
        redirect_stdout(output),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as stopped,
    ):
        read_or_exit()
    line = errors.getvalue()
    assert (stopped.value.code, output.getvalue()) == (STOPPED, ""), line
    assert len(line.splitlines()) == 1, line
    assert [name for name in named if not re.search(rf"\b{name}\b", line)] == [], line
    return line


def variables() -> set[str]:
    """All that objgw.py takes for settings."""
    settings = dataclasses.fields(Settings)
    return {f"OBJGW_{setting.name.upper()}" for setting in settings if not setting.metadata}


def handed_over(file: str) -> set[str]:
    """The names of the variables that a compose file hands over to the gateway."""
    services = yaml.safe_load((CHECKOUT / file).read_text())["services"]
    return {entry.partition("=")[0] for entry in services["gateway-container"]["environment"]}


@pytest.mark.parametrize(
    "env",
    [{"OBJGW_NODE_PORT": "abc"}, {"OBJGW_TOKEN": "treepotato"}, {"OBJGW_TOKENS_FILE": "/missing"}],
    ids=["a wrong value", "no setting", "no file"],
)
def test_what_stops_the_start_stops_objgw_itself(env: dict[str, str]) -> None:
    """The other tests here call what it calls, which takes no second each."""
    done = python("import objgw", env)
    assert (done.returncode, done.stdout, done.stderr) == (STOPPED, "", assert_stops(env, *env))


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n in WRONG_SETTINGS for value in WRONG_SETTINGS[n]]
)
def test_a_setting_that_can_not_be_used_stops_the_start_with_one_line_that_names_it(
    name: str, value: str
) -> None:
    line = assert_stops({name: value}, name)
    secret = name in ("OBJGW_TOKENS", "OBJGW_READ_TOKENS", "OBJGW_LINK_KEY")
    assert not secret or not value.strip() or value not in line  # it is in no log


@pytest.mark.parametrize(("name", "nearest"), MISSPELT.items())
def test_a_variable_that_is_no_setting_stops_the_start_with_one_line_that_names_the_nearest_one(
    name: str, nearest: str
) -> None:
    assert "treepotato" not in assert_stops({name: "treepotato"}, name, nearest)


@pytest.mark.parametrize(
    "name", ["OBJGW_TOKENS", "OBJGW_READ_TOKENS", "OBJGW_LINK_KEY", "OBJGW_NODE_PORT"]
)
@pytest.mark.parametrize("text", ["", " ", "\n\t\n"])
def test_a_file_that_holds_nothing_stops_the_start(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "setting").write_text(text)
    assert_stops({f"{name}_FILE": str(tmp_path / "setting")}, f"{name}_FILE")


def test_a_setting_that_is_a_variable_and_a_file_at_once_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "setting").write_text("second")
    for name in sorted(variables()):
        assert "second" not in assert_stops(
            {name: "9", f"{name}_FILE": str(tmp_path / "setting")}, name, f"{name}_FILE"
        )


def test_a_token_that_may_write_and_may_only_read_stops_the_start() -> None:
    tokens = {"OBJGW_TOKENS": "first second", "OBJGW_READ_TOKENS": "third second"}
    assert "second" not in assert_stops(tokens, *tokens)


@pytest.mark.parametrize("name", ["OBJGW_TOKENS", "OBJGW_READ_TOKENS"])
def test_a_link_key_that_is_a_token_stops_the_start(name: str) -> None:
    secrets = {name: "k" * 32, "OBJGW_LINK_KEY": f"{'n' * 32} {'k' * 32}"}
    assert "kkk" not in assert_stops(secrets, "OBJGW_LINK_KEY")


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "https://app.example",
        "https://app.example:80 http://app.example:443",
        "http://localhost:8080\nhttp://127.0.0.1:65535",
        "http://[::1]:3000",
        "https://xn--bcher-kva.example",
        "http://my_app",
        "capacitor://localhost chrome-extension://abcdefghijklmnop",
    ],
)
def test_origins_as_browsers_send_them_are_taken(origins: str) -> None:
    settings = Settings.from_environ({"OBJGW_CORS_ORIGINS": origins})
    assert settings.cors_origins == origins


def test_an_empty_variable_counts_as_unset_and_one_of_the_image_or_of_compose_is_let_be() -> None:
    env = {f"{name}{end}": "" for name in (*variables(), *MISSPELT) for end in ("", "_FILE")}
    env |= dict.fromkeys(("OBJGW_USER", "OBJGW_IMAGE", "OBJGW_NODE_IMAGE"), "65534")
    done = python("import objgw; assert objgw.app.settings == objgw.Settings()", env)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_gives_each_setting_the_value_that_a_variable_gives_it(tmp_path: Path) -> None:
    values = {
        "OBJGW_LOG_FORMAT": "json",
        "OBJGW_ACCESS_LOG": "off",
        "OBJGW_PAGE": "off",
        "OBJGW_TOKENS": "first\nsecond",
        "OBJGW_LINK_KEY": f"{'n' * 32}\n{'k' * 32}",
        "OBJGW_CORS_ORIGINS": "https://app.example\nhttp://localhost:8080",
        "OBJGW_NODES": "a=http://key:secret@store:9000",
        "OBJGW_NODES_CA": ssl.DER_cert_to_PEM_cert(system_certificate()),
    }
    wanted = dict.fromkeys(variables(), "777") | values
    for name, value in wanted.items():
        (tmp_path / name).write_text(f"{value}\n")
    script = (
        "import objgw, gateway.status.logs as logs\n"
        "print(objgw.app.settings, objgw.app.settings.tokens, "
        "logs.log_settings(objgw.app.settings))"
    )
    by_file = python(script, {f"{name}_FILE": str(tmp_path / name) for name in wanted})
    assert "JsonFormatter" in by_file.stdout
    assert by_file.stdout == python(script, wanted).stdout


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-stack.yml"])
def test_a_compose_file_hands_over_every_setting_and_the_likeliest_slips(file: str) -> None:
    settings = variables()
    files = {f"{name}_FILE" for name in settings}
    if file == "docker-stack.yml":
        # It would be refused beside the variable, which has a default there.
        files.remove("OBJGW_CLIENT_CONNECTIONS_FILE")
    slips = {"OBJGW_TOKEN", "OBJGW_TOKEN_FILE", "OBJGW_READ_TOKEN", "OBJGW_READ_TOKEN_FILE"}
    found = {name for name in handed_over(file) if not name.startswith("OTEL_")}
    assert found == settings | files | slips | {"WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"}


def test_the_documents_have_every_setting_and_all_files_have_one_image_of_nodes() -> None:
    settings = (CHECKOUT / "docs" / "operating.md").read_text()
    assert {name for name in variables() if f"| `{name}` |" not in settings} == set()
    readme = (CHECKOUT / "README.md").read_text()
    assert set(re.findall(r"^\| `(OBJGW_\w+)` \|", readme, re.MULTILINE)) < variables()
    images = {
        image
        for file in ("docs/security.md", "docker-compose.yml", "docker-stack.yml")
        for image in re.findall(r"[\w./]*minio/minio:[\w.-]+", (CHECKOUT / file).read_text())
    }
    assert images == {MINIO}
    assert MINIO.startswith("quay.io/")
