"""The join on generated traffic."""
