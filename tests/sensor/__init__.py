"""The sensor from outside: real clients, floods, packets at top speed."""
