"""Debian's Apache and nginx, configured from docs/servers.md word by word, with real clients. Needs root."""
