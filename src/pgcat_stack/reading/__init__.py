"""One reading of a deployment: its files, what runs in it, and which servers it uses.

deployment.py   the files of a folder, and the objects in them
containers.py   the containers of manifests and the services of compose.yaml, in one shape
workloads.py    what runs PgCat and Permify, and how many of them
topology.py     workloads, pools, Permify's database settings and servers, together
"""
