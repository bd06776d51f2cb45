"""One reading of a deployment: its files, what runs in it, and which servers it uses.

deployment.py      the files of a folder, and the objects in them
capacities.py      budget.yaml: what each server has to give
containers.py      the containers of manifests and the services of compose.yaml, in one shape; rights.py: what
                   they may do; images.py: what they run; pods.py: what makes them; compose.py: what
                   compose.yaml declares; secret_objects.py: Secrets and what makes them
types.py           which type each value has, by kind of object
workloads.py       what runs PgCat and Permify, and how many of them
permify.py         the settings that each Permify takes, with their places; chart.py: its chart's values
topology.py        workloads, pools, Permify and servers, together
connections.py     the connection strings in use
services.py        Services of Kubernetes; ports.py: what listens, what is declared, what is asked
network.py         how all these find each other, and the connections that they need
policies.py        NetworkPolicies, and those of Cilium; selectors.py: label selectors
monitoring.py      what scrapes and probes, and what answers; rules and dashboards
scaling.py         autoscalers and disruption budgets
kustomizations.py  what kustomizations make of objects
names.py           names, labels and annotations
"""
