"""The make of a server by its image: the port, and the region where nothing else says it."""

from __future__ import annotations

import pytest

from gateway.nodes.sources.keys import region_from_env
from gateway.nodes.sources.makes import make_of

DIGEST = "@sha256:" + "0" * 64

# An image, its port and its region.
IMAGES = [
    ("", 9000, "us-east-1"),
    ("minio/minio", 9000, "us-east-1"),
    ("quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z", 9000, "us-east-1"),
    ("pgsty/silo:latest", 9000, "us-east-1"),
    ("rustfs/rustfs:1.0.1", 9000, "us-east-1"),
    ("chrislusf/seaweedfs", 8333, "us-east-1"),
    ("chrislusf/seaweedfs:3.97_large_disk", 8333, "us-east-1"),
    ("dxflrs/garage:v2.3.0", 3900, "garage"),
    ("dxflrs/amd64_garage:v1.0", 3900, "garage"),
    ("localhost:5000/dxflrs/garage", 3900, "garage"),
    (f"dxflrs/garage{DIGEST}", 3900, "garage"),
    ("versity/versitygw:v1.8.0", 7070, "us-east-1"),
    (f"ghcr.io/versity/versitygw:v1.8.0{DIGEST}", 7070, "us-east-1"),
    ("registry.example:5000/team/my-versitygw", 7070, "us-east-1"),
    ("VersityGW", 7070, "us-east-1"),
    # What has a make's name elsewhere is of another one, or of none.
    ("garage.example:7070/minio/minio", 9000, "us-east-1"),
    ("garage/store:garage", 9000, "us-east-1"),
    ("garages", 9000, "us-east-1"),
    ("sha256:" + "7" * 64, 9000, "us-east-1"),
]


@pytest.mark.parametrize(("image", "port", "region"), IMAGES)
def test_the_repository_of_an_image_says_its_port_and_region(
    image: str, port: int, region: str
) -> None:
    assert make_of(image).port == port
    assert region_from_env({}, image) == region
