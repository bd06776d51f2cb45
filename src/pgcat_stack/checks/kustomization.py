"""PS43x: kustomization.yaml lists files that are there, and what it makes of the objects is judged.

`replicas`, `images`, `namespace` and the names of Services are applied before anything is judged, see
`transforms.py`.
https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.build.kustomize import listed_files
from pgcat_stack.checks import check
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import KUSTOMIZATION
from pgcat_stack.printable import show
from pgcat_stack.reading.kustomizations import Kustomization, files_with_objects
from pgcat_stack.reading.reading import Reading

_MANIFESTS = "kubernetes/"
_UNSEEN = {
    "components": "what they add and change",
    "generators": "what they make",
    "helmCharts": "the objects of the charts",
}
_UNHASHED = "without a hash in its name a changed ConfigMap no longer rolls the pods"


@check(
    code="PS430",
    name="kustomize-file-missing",
    severity="error",
    why="`kubectl apply -k` stops at the first file that is not there.",
    fix="Create the file, correct its path, or remove the line.",
)
def kustomize_file_missing(reading: Reading) -> Iterator[Problem]:
    """Resources, patches and files of generators that do not exist."""
    for source in reading.kustomizations:
        for entry in listed_files(source):
            if not reading.remote(entry) and not reading.exists(entry.target):
                yield Problem(
                    source.at(*entry.keys),
                    f"{show(entry.text)} is not there",
                    "create it, correct the path, or remove the line",
                )


@check(
    code="PS431",
    name="unlisted-manifest",
    severity="warning",
    why="A file that no kustomization lists is never applied, and looks as if it were.",
    fix="List it under `resources` of kustomization.yaml, or delete it.",
)
def unlisted_manifest(reading: Reading) -> Iterator[Problem]:
    """YAML files under kubernetes/ that no kustomization names."""
    if reading.kustomization is None or not reading.kustomization.mapping:
        return
    known = reading.kustomizations
    listed = {entry.target for source in known for entry in listed_files(source)}
    listed |= {source.path for source in known}
    for path, source in reading.sources.items():
        if path.startswith(_MANIFESTS) and source.language == "yaml" and path not in listed:
            fix = f"add it to resources of {KUSTOMIZATION}, or delete it"
            yield Problem(source.here(), "no kustomization lists this file, so it is never applied", fix)


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
    for kustomization in reading.kustomization_settings:
        for field, place in kustomization.transforming:
            if not (field == "patches" and kustomization.component):
                unseen = _UNSEEN.get(field, "what they change")
                text = f"{field} are applied by kustomize and not here: {unseen} is not judged"
                yield Problem(place, text, "write it into the manifests under kubernetes/")
        yield from _unhashed(reading, kustomization)
    for root in reading.kustomization_settings[:1]:
        lost = [pod for pod in reading.pods if not pod.manifest.namespace]
        namespaces = reading.of_kind("Namespace")
        if lost and namespaces and not root.empty and not root.has_namespace:
            text = f"no namespace: {lost[0].text} goes wherever kubectl points"
            yield Problem(root.location, text, f"write namespace: {namespaces[0].name}")


def _unhashed(reading: Reading, kustomization: Kustomization) -> Iterator[Problem]:
    """Generated ConfigMaps under a fixed name; a single one only where a pod of the deployment mounts it."""
    if kustomization.fixes_names:
        yield Problem(kustomization.fixes_names_location, _UNHASHED, "remove disableNameSuffixHash")
    for generator in kustomization.generators:
        single = generator.kind == "configMapGenerator" and generator.own_name_is_fixed
        if single and any(generator.name in pod.config_maps for pod in reading.pods):
            yield Problem(generator.fixed_location, _UNHASHED, "remove disableNameSuffixHash")


@check(
    code="PS437",
    name="kustomization-missing",
    severity="error",
    why="kustomization.yaml names what is applied and makes the ConfigMaps. Without it `kubectl apply -k`"
    " does nothing, and the validator has no object to judge.",
    fix="Put kustomization.yaml back, or delete kubernetes/ where the deployment runs on docker.",
)
def kustomization_missing(reading: Reading) -> Iterator[Problem]:
    """Manifests under kubernetes/ beside no kustomization.yaml."""
    if reading.kustomization is not None:
        return
    found = [path for path in files_with_objects(reading.sources.values()) if path.startswith(_MANIFESTS)]
    if found:
        text = f"the file is missing: nothing applies or judges {found[0]}"
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield Problem(Location(KUSTOMIZATION), text + more, "put it back, or delete kubernetes/")
