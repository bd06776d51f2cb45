"""What only Permify is.

settings.py     what it reads from its configuration file     chart.py   what its Helm chart makes of values
defaults.py     what it takes where that is silent         callers.py   where the keys of its callers are
"""
