"""What is not needed to answer for an object, but to run a gateway: logs, metrics, health, and a page for people."""
