"""What an operator needs and a request doesn't: logs, metrics, health, and a page for people."""
