"""The binary on bad input, bad configuration and signals: messages, exit codes, counted rejects."""
