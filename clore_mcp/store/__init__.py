"""Durable rows. Only this package imports a database driver."""
