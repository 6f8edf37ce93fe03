"""Real servers for tests, on loopback ports, without containers: `python -m tests.servers fetch`, then fixtures."""
