"""One pipeline in several processes."""
