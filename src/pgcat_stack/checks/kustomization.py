"""PS436: what kustomization.yaml makes of the manifests beyond what is judged.

`replicas`, `images`, `namespace` and the names of Services are applied before anything is judged, see
`transforms.py`.
https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import as_list, as_mapping, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Problem
from pgcat_stack.reading.reading import Reading

_NOT_APPLIED = {
    "patches": "what they change",
    "patchesStrategicMerge": "what they change",
    "patchesJson6902": "what they change",
    "replacements": "what they change",
    "transformers": "what they change",
    "components": "what they add and change",
    "generators": "what they make",
    "helmCharts": "the objects of the charts",
}
_UNHASHED = "without a hash in its name a changed ConfigMap no longer rolls the pods"


@check(
    code="PS436",
    name="kustomize-not-judged",
    severity="warning",
    why="Manifests are judged as they are written, with `replicas`, `images` and `namespace` of"
    " kustomization.yaml. What a patch or a component changes is not seen, be it a number of replicas or a"
    " grace period. Without a namespace objects go wherever kubectl happens to point, and with a fixed name a"
    " changed ConfigMap restarts nothing.",
    fix="Write the change into the manifest itself; keep `namespace` and the hashes of generated names.",
)
def kustomize_not_judged(reading: Reading) -> Iterator[Problem]:
    """Patches, components and others that are not applied; names without a hash; no namespace."""
    for source in reading.kustomizations:
        for key, unseen in _NOT_APPLIED.items():
            completed = key == "patches" and source.mapping.get("kind") == "Component"
            if source.mapping.get(key) and not completed:
                text = f"{key} are applied by kustomize and not here: {unseen} is not judged"
                yield Problem(source.at(key), text, "write it into the manifests under kubernetes/")
        yield from _unhashed(reading, source)
    root = reading.kustomization
    if root is not None and root.mapping and "namespace" not in root.mapping:
        lost = [pod for pod in reading.pods if not pod.manifest.namespace]
        namespaces = reading.of_kind("Namespace")
        if lost and namespaces:
            text = f"no namespace: {lost[0].text} goes wherever kubectl points"
            yield Problem(root.here(), text, f"write namespace: {namespaces[0].name}")


def _unhashed(reading: Reading, source: Source) -> Iterator[Problem]:
    """Generated ConfigMaps under a fixed name; a single one only where a pod of the deployment mounts it."""
    keys = ("generatorOptions", "disableNameSuffixHash")
    if dig(source.data, *keys) is True:
        yield Problem(source.at(*keys), _UNHASHED, "remove disableNameSuffixHash")
    for index, generator in enumerate(as_list(source.mapping.get("configMapGenerator"))):
        if dig(generator, "options", "disableNameSuffixHash") is True and any(
            dig(generator, "name") in _mounted(volume) for pod in reading.pods for volume in pod.volumes
        ):
            place = source.at("configMapGenerator", index, "options", "disableNameSuffixHash")
            yield Problem(place, _UNHASHED, "remove disableNameSuffixHash")


def _mounted(volume: object) -> list[object]:
    """The ConfigMaps of a volume."""
    found = [dig(volume, "configMap")]
    found += [dig(source, "configMap") for source in as_list(dig(volume, "projected", "sources"))]
    return [as_mapping(one).get("name") for one in found if one]
