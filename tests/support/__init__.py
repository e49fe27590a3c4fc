"""What several kinds of tests share: real processes, clients, writers, a proxy, a checker."""
