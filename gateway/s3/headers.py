"""The headers of S3 and of HTTP that more than one room has to know by name."""

from __future__ import annotations

# What is stored with an object besides x-amz-meta-*: PUT takes it, GET gives it back, a rebalance takes it along.
STORED = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
)
IF_MATCH = ("if-match", "if-none-match")
PAYLOAD_DIGEST = "x-amz-content-sha256"  # the SHA-256 of a body, which S3's signature has
