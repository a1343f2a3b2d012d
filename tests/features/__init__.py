"""Features of generated traffic, against their recomputation."""
