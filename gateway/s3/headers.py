"""What more than one room has to know of S3: headers by their names, sizes, and statuses.

All names of headers are in lower case, as the code compares them.
"""

from __future__ import annotations

# What is stored with an object besides x-amz-meta-*: PUT takes it, GET gives it back, a rebalance
# takes it along.
STORED = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
)
# The conditions of a PUT that S3 knows.
IF_MATCH = ("if-match", "if-none-match")
PAYLOAD_DIGEST = "x-amz-content-sha256"  # the SHA-256 of a body, which S3's signature has
LISTING_PAGE = 1000  # entries of one listing, as many as S3 gives at once
# Bytes of a document. The longest is a page of a listing: its keys may have 1,024 bytes each, of
# which each may be written as three, and an entry has some hundred more.
DOCUMENT_MAX = 4 << 20
NOTHING_LEFT = (200, 204, 404)  # statuses of a DELETE after which nothing is there
