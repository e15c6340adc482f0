"""What more than one room has to know of S3: headers by their names, and the length of a listing.

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
