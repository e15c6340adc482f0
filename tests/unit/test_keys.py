"""Keys of nodes, from their environment and from files of secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.nodes.sources import keys
from gateway.nodes.sources.keys import (
    MAX_KEY_BYTES,
    Config,
    NoKeys,
    environment,
    keys_from_env,
    keys_of,
    read_key,
    region_from_env,
    with_key_files,
)

MINIO = {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "root-password"}
OLD = {"MINIO_ACCESS_KEY": "old", "MINIO_SECRET_KEY": "old-password"}
RUSTFS = {"RUSTFS_ACCESS_KEY": "rust", "RUSTFS_SECRET_KEY": "rust-password"}
SEAWEEDFS = {"AWS_ACCESS_KEY_ID": "weed", "AWS_SECRET_ACCESS_KEY": "weed-password"}
GARAGE = {"GARAGE_DEFAULT_ACCESS_KEY": "GK1", "GARAGE_DEFAULT_SECRET_KEY": "garage-password"}
VERSITY = {"ROOT_ACCESS_KEY": "vgw", "ROOT_SECRET_KEY": "vgw-password"}
VERSITY_ID = {"ROOT_ACCESS_KEY_ID": "vgw-id", "ROOT_SECRET_ACCESS_KEY": "vgw-id-password"}
ALL = MINIO | OLD | RUSTFS | SEAWEEDFS | GARAGE | VERSITY | VERSITY_ID

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
    # Of an image whose make is known, its own variables win.
    (ALL, "quay.io/minio/minio:x", ("root", "root-password")),
    (ALL, "rustfs/rustfs", ("rust", "rust-password")),
    (ALL, "chrislusf/seaweedfs:3.97", ("weed", "weed-password")),
    (ALL, "dxflrs/garage:v2.3.0", ("GK1", "garage-password")),
    (ALL, "versity/versitygw:v1.8.0", ("vgw-id", "vgw-id-password")),
    (VERSITY, "ghcr.io/versity/versitygw", ("vgw", "vgw-password")),
    (RUSTFS, "minio/minio", ("rust", "rust-password")),
    *((OLD, image, ("old", "old-password")) for image in ("rustfs", "garage", "versitygw")),
    # Others' variables aren't its own: they may be there for another purpose.
    (SEAWEEDFS | VERSITY, "minio/minio", ("minioadmin", "minioadmin")),
    (SEAWEEDFS | VERSITY, "rustfs/rustfs", ("rustfsadmin", "rustfsadmin")),
    # Of an image that tells no make, all count.
    (GARAGE | VERSITY | SEAWEEDFS, "own", ("GK1", "garage-password")),
    (VERSITY | SEAWEEDFS, "own", ("vgw", "vgw-password")),
    (SEAWEEDFS, "own", ("weed", "weed-password")),
]

NONE: dict[str, tuple[dict[str, str], str, str]] = {  # the environment, the image, what is said
    "SeaweedFS": ({}, "seaweedfs", "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"),
    "Garage": ({}, "garage", "(GARAGE_DEFAULT_ACCESS_KEY and GARAGE_DEFAULT_SECRET_KEY)"),
    "versitygw": ({}, "versitygw", "(ROOT_ACCESS_KEY_ID and ROOT_SECRET_ACCESS_KEY)"),
    "half a pair": ({"ROOT_ACCESS_KEY": "vgw"}, "versitygw", "its environment has no keys"),
    "RustFS with a file that we lack": (
        {"RUSTFS_SECRET_KEY_FILE": "/etc/rustfs/key", "RUSTFS_ACCESS_KEY": "rust"},
        "rustfs/rustfs",
        "the file of its RUSTFS_SECRET_KEY_FILE isn't among the gateway's secrets",
    ),
    "MinIO with a file that we lack": (
        {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD_FILE": "/run/secrets/password"},
        "minio/minio",
        "the file of its MINIO_ROOT_PASSWORD_FILE isn't among the gateway's secrets",
    ),
}


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


@pytest.mark.parametrize("row", NONE)
def test_a_server_whose_keys_nothing_says_is_asked_with_no_others(row: str) -> None:
    env, image, reason = NONE[row]
    with pytest.raises(NoKeys) as raised:
        keys_from_env(env, image)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("env", "image", "region"),
    [
        ({"RUSTFS_REGION": "rust-1", "MINIO_REGION": "minio-1"}, "rustfs/rustfs", "rust-1"),
        ({"VGW_REGION": "vgw-1", "MINIO_REGION": "minio-1"}, "versity/versitygw", "vgw-1"),
        ({"VGW_REGION": "vgw-1", "MINIO_REGION": "minio-1"}, "minio/minio", "minio-1"),
        ({"VGW_REGION": "vgw-1"}, "minio/minio", "us-east-1"),
        ({"VGW_REGION": "vgw-1"}, "dxflrs/garage", "garage"),
        ({"VGW_REGION": "vgw-1"}, "own", "vgw-1"),
    ],
)
def test_the_region_is_the_one_that_a_server_of_this_make_takes(
    env: dict[str, str], image: str, region: str
) -> None:
    assert region_from_env(env, image) == region


PAIRS = [  # an image, and the variables of its keys
    ("rustfs", "RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),
    ("seaweedfs", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("garage", "GARAGE_DEFAULT_ACCESS_KEY", "GARAGE_DEFAULT_SECRET_KEY"),
    ("versitygw", "ROOT_ACCESS_KEY", "ROOT_SECRET_KEY"),
    ("versitygw", "ROOT_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY"),
    ("minio", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    ("minio", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
]


@pytest.mark.parametrize(("image", "access", "secret"), PAIRS)
def test_each_pair_of_variables_may_be_files(
    image: str, access: str, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SECRETS", tmp_path)
    (tmp_path / "one").write_text("of-one\n")
    (tmp_path / "two").write_text("of-two\n")
    env = [f"{access}_FILE={tmp_path}/one", f"{secret}_FILE=two"]
    ours = {"one": "one", "two": "two"}
    assert keys_of(Config(env, image, ours)) == ("of-one", "of-two")
    with pytest.raises(NoKeys, match=r"isn't among the gateway's secrets"):
        keys_of(Config(env, image, {}))
    with pytest.raises(NoKeys, match="a secret with its keys can't be read: No such file"):
        keys_of(Config(env, image, {"one": "one", "two": "gone"}))


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


# -- files that labels name

TEXTS: dict[bytes, str] = {
    b"ring": "ring",
    b"  ring\n": "ring",
    b"ring\r\n": "ring",
    b"a key with blanks ": "a key with blanks",
    "gr\u00fcn-\u9375".encode(): "gr\u00fcn-\u9375",
    b"k" * MAX_KEY_BYTES: "k" * MAX_KEY_BYTES,
}
NO_TEXTS: dict[bytes, str] = {
    b"": "is empty",
    b" \n\t": "is empty",
    b"treepotato\nsecond": "isn't one line of text",
    b"treepotato\r\nX-Injected: 1": "isn't one line of text",
    b"treepotato\x00": "isn't one line of text",
    b"treepotato\x7f!": "isn't one line of text",
    b"treepotato\xff": "isn't text",
    b"k" * (MAX_KEY_BYTES + 1): f"has more than {MAX_KEY_BYTES} bytes",
    b"treepotato" * 1_000_000: f"has more than {MAX_KEY_BYTES} bytes",
}


@pytest.mark.parametrize("content", TEXTS, ids=lambda content: repr(content[:20]))
def test_a_file_has_one_key(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    assert read_key(f"{tmp_path}/key") == TEXTS[content]


@pytest.mark.parametrize("content", NO_TEXTS, ids=lambda content: repr(content[:20]))
def test_a_file_that_has_no_key_is_told_without_what_is_in_it(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(NoKeys) as raised:
        read_key(f"{tmp_path}/key")
    assert str(raised.value) == NO_TEXTS[content]


def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(NoKeys, match=r"^is no regular file$"):
            read_key(str(path))
    for path, reason in {
        tmp_path / "missing": "No such file or directory",
        tmp_path / "pipe" / "below": "Not a directory",
        tmp_path / ("n" * 300): "File name too long",
    }.items():
        with pytest.raises(NoKeys, match=f"^can't be read: {reason}$"):
            read_key(str(path))
    with pytest.raises(NoKeys, match=r"^isn't text$"):
        read_key("/a\0b")
