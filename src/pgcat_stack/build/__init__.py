"""What would be applied: the objects of kustomizations, and what compose.yaml names.

kustomize.py    what kustomizations list, add and make      objects.py      the objects, as they change them
transforms.py   counts, images and names                    manifests.py    one object with its place
compose.py      what compose.yaml names                     above.py        files above the deployment
names.py        what Kubernetes and Compose accept as a name
"""
