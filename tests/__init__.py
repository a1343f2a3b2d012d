"""End-to-end tests: the built binary on recorded, live and bad input. `make test-end-to-end` runs them.

Only the standard library; what a test needs beyond it (tshark, Chromium, root) it looks for, and says why it is skipped.
"""
