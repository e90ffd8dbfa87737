"""How fast streamapp is beside other ways to do the same work: `make bench`."""
