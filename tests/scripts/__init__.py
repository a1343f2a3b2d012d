"""The scripts of the build."""
