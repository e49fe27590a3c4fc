"""Who may do what, and how often: credentials, membership, limits."""
