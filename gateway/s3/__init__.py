"""One signed, streamed request to one node."""
