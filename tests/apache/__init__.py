"""The Apache module, loaded into Debian's Apache. `make apache` builds it and runs these tests."""
