"""What only PgCat is: another pooler would be another such folder.

version.py      the line of PgCat that an image stands for      settings.py   what it reads from pgcat.toml
pools.py        the pools, with PgCat's defaults                metrics.py    what its exporter serves
"""
