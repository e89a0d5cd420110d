"""One suite a protocol, run alike over memory and over the real thing."""
