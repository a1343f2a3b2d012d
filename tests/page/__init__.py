"""The page in a browser. Needs Chromium."""
