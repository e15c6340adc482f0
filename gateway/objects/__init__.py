"""What a request for an object does."""
