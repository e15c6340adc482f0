"""What labels say of a node, and what is said of labels that can't be used."""

from __future__ import annotations

import pytest

from gateway.nodes.sources.labels import Labels, WrongLabel, labelled_name, labels_of

ACCESS, SECRET = "objgw.access-key-file", "objgw.secret-key-file"
FILES = {ACCESS: "/keys/access", SECRET: "/keys/secret"}

NAMES = ["n", "cold-1", "A.b_c-9", "9" * 128]
NO_NAMES = ["", " ", " cold", "cold 1", "-cold", ".", "cold/1", "a" * 129, "kält", "a\n", "a\nb"]

GOOD: dict[str, tuple[dict[str, str], Labels]] = {
    "none": ({}, Labels()),
    "others": ({"objgw.node": "cold", "com.docker.compose.project": "x"}, Labels()),
    "a port": ({"objgw.port": "9100"}, Labels(port=9100)),
    "the first port": ({"objgw.port": "1"}, Labels(port=1)),
    "the last port": ({"objgw.port": "65535"}, Labels(port=65535)),
    "a region": ({"objgw.region": "eu-central-7"}, Labels(region="eu-central-7")),
    "files": (FILES, Labels(key_files=("/keys/access", "/keys/secret"))),
    "all": (
        {"objgw.port": "8333", "objgw.region": "garage", **FILES},
        Labels(8333, "garage", ("/keys/access", "/keys/secret")),
    ),
}

WRONG: dict[str, tuple[dict[str, str], str]] = {
    **{
        f"the port {port!r}": ({"objgw.port": port}, "its label objgw.port is no port")
        for port in [
            "",
            " ",
            "http",
            "0",
            "-1",
            "65536",
            "999999",
            "9000/tcp",
            "90.0",
            " 9000",
            "٩",
        ]
    },
    **{
        f"the region {region!r}": ({"objgw.region": region}, "its label objgw.region is no region")
        for region in ["", " ", "eu central", "eu_1", "eu\n", "a/b"]
    },
    "no file of the secret key": ({ACCESS: "/a"}, f"it has the label {ACCESS}, and not {SECRET}"),
    "no file of the access key": ({SECRET: "/a"}, f"it has the label {SECRET}, and not {ACCESS}"),
    "an empty path": ({**FILES, SECRET: ""}, f"its label {SECRET} is no path"),
    "a relative path": ({**FILES, ACCESS: "keys/access"}, f"its label {ACCESS} is no path"),
    "a key for a path": ({**FILES, SECRET: "treepotato"}, f"its label {SECRET} is no path"),
    "no file, and a key for a path": ({SECRET: "treepotato"}, "and not objgw.access-key-file"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_label_names_a_node_as_a_container_may_be_named(name: str) -> None:
    assert labelled_name({"objgw.node": name}) == name


def test_without_the_label_there_is_no_name() -> None:
    assert labelled_name({"objgw.nodes": "cold", "objgw.port": "9100"}) is None


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_label_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(WrongLabel, match=r"its label objgw\.node is no name: "):
        labelled_name({"objgw.node": name})


@pytest.mark.parametrize("row", GOOD)
def test_labels_say_port_region_and_files(row: str) -> None:
    labels, expected = GOOD[row]
    assert labels_of(labels) == expected


@pytest.mark.parametrize("row", WRONG)
def test_a_label_that_can_not_be_used_is_named_and_its_value_is_not_shown(row: str) -> None:
    labels, reason = WRONG[row]
    with pytest.raises(WrongLabel) as raised:
        labels_of(labels)
    assert reason in str(raised.value)
    assert "treepotato" not in str(raised.value)
