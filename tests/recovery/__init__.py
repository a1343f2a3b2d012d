"""What is left after kill -9, damage, a full disk and clocks that step."""
