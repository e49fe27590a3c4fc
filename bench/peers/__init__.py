"""The systems under test: seqstream and what people would pick instead, behind one interface."""
