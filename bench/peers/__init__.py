"""The systems under test, behind one interface: seqstream and alternatives to it."""
