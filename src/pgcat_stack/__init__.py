"""Reads a rendered deployment of PgCat and Permify and proves that it holds together."""

__version__ = "1.1.0"
