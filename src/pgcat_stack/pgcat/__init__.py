"""What only PgCat is: another pooler would be another such folder.

version.py      the line of PgCat that an image stands for      settings.py   what it reads from pgcat.toml
config.py       a pgcat.toml, read once                         metrics.py    what its exporter serves
"""
