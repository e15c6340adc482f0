"""Keys of nodes, from their environment and from files of secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.nodes.sources import keys
from gateway.nodes.sources.keys import (
    environment,
    keys_from_env,
    region_from_env,
    with_key_files,
)

MINIO = {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "root-password"}
OLD = {"MINIO_ACCESS_KEY": "old", "MINIO_SECRET_KEY": "old-password"}
RUSTFS = {"RUSTFS_ACCESS_KEY": "rust", "RUSTFS_SECRET_KEY": "rust-password"}

FROM_ENV: list[
    tuple[dict[str, str], str, tuple[str, str]]
] = [  # the environment, the image, access and secret key
    (MINIO, "", ("root", "root-password")),
    (OLD, "", ("old", "old-password")),
    (RUSTFS, "", ("rust", "rust-password")),
    (RUSTFS | OLD | MINIO, "", ("root", "root-password")),
    (RUSTFS | OLD, "", ("old", "old-password")),
    (OLD | {"MINIO_ROOT_USER": "half"}, "", ("old", "old-password")),
    (OLD | {"MINIO_ROOT_USER": "", "MINIO_ROOT_PASSWORD": ""}, "", ("old", "old-password")),
    ({"MINIO_ACCESS_KEY": "half"}, "", ("minioadmin", "minioadmin")),
    (
        {"MINIO_ACCESS_KEY_FILE": "access_key", "MINIO_SECRET_KEY_FILE": "secret_key"},
        "",
        ("minioadmin", "minioadmin"),
    ),
    ({}, "minio/minio", ("minioadmin", "minioadmin")),
    ({}, "rustfs/rustfs:latest", ("rustfsadmin", "rustfsadmin")),
    ({"MINIO_ACCESS_KEY": "a=b", "MINIO_SECRET_KEY": "c==d"}, "", ("a=b", "c==d")),
]


def test_blanks_around_a_value_do_not_count_and_a_value_of_blanks_is_none() -> None:
    lines = ["MINIO_ROOT_USER=  ", "MINIO_ROOT_PASSWORD=\t", " MINIO_REGION=x", "no value"]
    lines += ["MINIO_ACCESS_KEY= gr\u00fcn ", "MINIO_SECRET_KEY=a = b\n"]
    env = environment(lines)
    assert keys_from_env(env) == ("gr\u00fcn", "a = b")
    assert region_from_env(env) == "us-east-1"


@pytest.mark.parametrize(
    ("env", "region"),
    [
        ({}, "us-east-1"),
        ({"MINIO_SITE_REGION": "site", "MINIO_REGION": "region"}, "region"),
        ({"MINIO_SITE_REGION": "site", "MINIO_REGION": ""}, "site"),
        ({"MINIO_SITE_REGION": "site", "MINIO_REGION_NAME": "name"}, "site"),
        ({"MINIO_REGION_NAME": "name"}, "name"),
    ],
)
def test_the_region_is_the_one_that_minio_takes(env: dict[str, str], region: str) -> None:
    assert region_from_env(env) == region


@pytest.mark.parametrize(("env", "image", "expected"), FROM_ENV)
def test_the_first_pair_of_which_both_are_set_counts(
    env: dict[str, str], image: str, expected: tuple[str, str]
) -> None:
    assert keys_from_env(env, image) == expected


def test_a_file_of_a_secret_takes_the_place_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SECRETS", tmp_path)
    (tmp_path / "ours").write_text("of-the-file\n")
    (tmp_path / "blank").write_text(" \n")
    env = {**MINIO, "MINIO_ROOT_PASSWORD_FILE": f"{tmp_path}/theirs"}
    assert with_key_files(env, {"theirs": "ours"})["MINIO_ROOT_PASSWORD"] == "of-the-file"
    assert with_key_files(env, {"theirs": "blank"}) == with_key_files(env, {"other": "ours"}) == env
    with pytest.raises(OSError, match="missing"):
        with_key_files(env, {"theirs": "missing"})
