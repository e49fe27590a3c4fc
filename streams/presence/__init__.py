"""What is never stored: who is online, and who is typing. In Redis alone."""
