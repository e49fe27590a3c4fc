"""Values of the protocol: ids, events, errors, builds, and their framing. Pure: no I/O."""
