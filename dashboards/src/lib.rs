//! The web service: SQL over HTTP and the pages.
