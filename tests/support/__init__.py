"""Tools that several kinds of tests share: processes, clients, writers, proxies, checkers."""
