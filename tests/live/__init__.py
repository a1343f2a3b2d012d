"""A live run between network namespaces. Needs root."""
