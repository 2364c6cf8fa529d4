"""A world in which leakage can be seen: small subjects that travel far over a landscape that stands still. See README.md."""
