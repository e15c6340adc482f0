"""Servers of S3 by their make: the port, the region and the variables of keys that each has.

The name of an image tells the make, wherever the image comes from: one of the words of its
repository (`chrislusf/seaweedfs:3.97`, `ghcr.io/versity/versitygw@sha256:…`,
`dxflrs/amd64_garage`). Where no word does, the server is taken for MinIO, and the variables of all
makes count.

Sources: docs.rustfs.com; seaweedfs/seaweedfs#7030 (its S3 takes any region); Garage's quick start
(the variables need release 2.3 and `--default-bucket`; the region is in its file of settings, which
nobody here can read); versitygw's cmd/versitygw/main.go.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Pair = tuple[str, str]  # the access key and the secret key, or their variables

MINIO_KEYS = (
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
)
RUSTFS_KEYS = (("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),)
GARAGE_KEYS = (("GARAGE_DEFAULT_ACCESS_KEY", "GARAGE_DEFAULT_SECRET_KEY"),)
VERSITYGW_KEYS = (
    ("ROOT_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY"),
    ("ROOT_ACCESS_KEY", "ROOT_SECRET_KEY"),
)
SEAWEEDFS_KEYS = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),)

# The first one that is set wins, as in MinIO (LookupSite in its internal/config/config.go). The
# last one is that of old releases; newer ones ignore it.
MINIO_REGIONS = ("MINIO_REGION", "MINIO_SITE_REGION", "MINIO_REGION_NAME")


class Make(NamedTuple):
    """What servers of one make have in common."""

    port: int
    keys: tuple[Pair, ...]  # variables, in the order in which they win
    default_keys: Pair | None = None  # what it has where none of them is set
    regions: tuple[str, ...] = ()  # variables, in the same order
    region: str = "us-east-1"  # where none of them is set


# A node of another make may have its keys repeated in MinIO's variables, and a MinIO that an
# entrypoint of its own starts may have those of RustFS.
MINIO = Make(9000, MINIO_KEYS + RUSTFS_KEYS, ("minioadmin", "minioadmin"), MINIO_REGIONS)
MAKES = {
    "minio": MINIO,
    "silo": MINIO,  # pgsty/silo, a fork
    "rustfs": Make(9000, RUSTFS_KEYS + MINIO_KEYS, ("rustfsadmin",) * 2, ("RUSTFS_REGION",)),
    "seaweedfs": Make(8333, SEAWEEDFS_KEYS + MINIO_KEYS),
    "garage": Make(3900, GARAGE_KEYS + MINIO_KEYS, region="garage"),
    "versitygw": Make(7070, VERSITYGW_KEYS + MINIO_KEYS, regions=("VGW_REGION",)),
}
# AWS_ACCESS_KEY_ID comes last, because what isn't SeaweedFS may have it for another purpose.
UNKNOWN = MINIO._replace(
    keys=MINIO.keys + GARAGE_KEYS + VERSITYGW_KEYS + SEAWEEDFS_KEYS,
    regions=(*MINIO_REGIONS, "RUSTFS_REGION", "VGW_REGION"),
)


def make_of(image: str) -> Make:
    """The make of an image, by its name with or without registry, tag and digest.

    >>> make_of("localhost:5000/rustfs/rustfs:1.0.1").default_keys
    ('rustfsadmin', 'rustfsadmin')
    """
    repository = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    words = re.split(r"[._-]+", repository.lower())
    return next((MAKES[word] for word in words if word in MAKES), UNKNOWN)
