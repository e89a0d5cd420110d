"""What computes: a model of our own on a device, a remote API, or a stand-in. See `protocols.Backend`."""
