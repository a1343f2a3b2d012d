"""A pipeline run again over a spool."""
