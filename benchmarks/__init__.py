"""Measurements that need a quiet machine: not tests. Each prints JSON lines on stdout and a table on stderr."""
