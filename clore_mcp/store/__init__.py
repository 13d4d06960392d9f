"""Durable rows: the only place that knows a database driver."""
