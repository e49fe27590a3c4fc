"""The window, the middle tier: the newest messages, in Redis. The only room that imports redis."""
