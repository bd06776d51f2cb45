"""What Kubernetes' own controllers and admission make of what is rendered, and of the commands in its README.

There is no node: pods are admitted and wait, until a test says that they are ready.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubernetes_cases import OPERATOR, STANDALONE, TOPOLOGIES
from live.control_plane import ControlPlane
from live.manifests import APPLIED, Applied, deployment, edited
from live.repeats import drawn, repeats
from pages import code_blocks
from runbook import section

pytestmark = pytest.mark.timeout(120)

LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module", autouse=True)
def _controllers(plane: ControlPlane) -> Iterator[None]:
    with plane.controllers():
        yield


# What a kubelet would say.


def tell(plane: ControlPlane, pod: dict[str, Any], status: dict[str, Any]) -> None:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
    with contextlib.suppress(urllib.error.HTTPError):  # it has gone meanwhile
        plane.call("PATCH", path, {"status": status}, "application/strategic-merge-patch+json")


def make_ready(plane: ControlPlane, pod: dict[str, Any]) -> None:
    """A pod of a Job has ended well; any other is ready, and long enough to be available."""
    ended = pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}
    tell(plane, pod, {"phase": "Succeeded"} if ended else {"phase": "Running", "conditions": [condition]})


def is_ready(pod: dict[str, Any]) -> bool:
    return pod["status"]["phase"] != "Pending"


@contextlib.contextmanager
def every_pod_gets_ready(plane: ControlPlane, namespace: str) -> Iterator[None]:
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.1):
            for pod in plane.pods(namespace):
                if not is_ready(pod):
                    make_ready(plane, pod)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def names(pods: list[dict[str, Any]]) -> list[str]:
    return sorted(pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods)


def pods_of(plane: ControlPlane, namespace: str, name: str) -> list[dict[str, Any]]:
    return [pod for pod in plane.pods(namespace) if names([pod]) == [name]]


def refusals(plane: ControlPlane, namespace: str) -> list[str]:
    """Why pods were not made, but for what the controllers mend themselves by trying again.

    Another controller makes the ServiceAccount `default` of a new namespace; until then no pod is admitted.
    """
    events = plane.call("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    messages = [event["message"] for event in events if event["reason"] == "FailedCreate"]
    return [message for message in messages if 'serviceaccount "default" not found' not in message]


# Pod Security, by the API server itself.

PODS = {
    "standalone-full": ["permify", "permify", "permify-migrate", "pgcat", "pgcat"],
    "sidecar-full": ["permify", "permify", "permify-migrate"],
    "direct-full": ["permify", "permify", "permify-migrate"],
    "component": ["permify", "permify", "permify"],
    "helm": ["permify-migrate", "pgcat", "pgcat"],
    "none": ["pgcat", "pgcat"],
}


@pytest.mark.parametrize("case", APPLIED)
def test_every_pod_is_admitted(case: str, plane: ControlPlane, applied: Applied) -> None:
    applied(case)
    labels = plane.call("GET", f"/api/v1/namespaces/{case}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    plane.wait_until(
        lambda: names(plane.pods(case)) == PODS[case] or refusals(plane, case), "its pods are there"
    )
    assert refusals(plane, case) == []


def test_a_pod_that_is_not_restricted_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    deploy = deployment(tmp_path / "deploy", "privileged", STANDALONE)
    edited(
        deploy, "pgcat-deployment.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"
    )
    plane.apply(deploy)
    plane.wait_until(lambda: refusals(plane, "privileged"), "a pod is refused")
    assert 'violates PodSecurity "restricted' in refusals(plane, "privileged")[0]
    assert "pgcat" not in names(plane.pods("privileged"))


# Disruption budgets: who may be evicted.


def evict(plane: ControlPlane, pod: dict[str, Any]) -> int:
    """Ask as `kubectl drain` does; returns the HTTP status."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    try:
        plane.call("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)
    except urllib.error.HTTPError as error:
        return error.code
    return 201


@pytest.mark.parametrize(("topology", "name"), [("standalone", "pgcat"), ("sidecar", "permify")])
def test_a_drain_takes_one_ready_pod_at_a_time(
    topology: str, name: str, plane: ControlPlane, applied: Applied
) -> None:
    applied(topology)
    plane.wait_until(lambda: len(pods_of(plane, topology, name)) == 2, "both pods are there")
    pods = pods_of(plane, topology, name)
    for pod in pods:
        make_ready(plane, pod)

    def allowed() -> int:
        budget = plane.objects(topology)[f"PodDisruptionBudget/{name}"]
        return int(budget.get("status", {}).get("disruptionsAllowed", -1))

    plane.wait_until(lambda: allowed() == 1, "the budget allows one disruption")
    assert evict(plane, pods[0]) == 201
    assert evict(plane, pods[1]) == 429


def test_pods_that_never_got_ready_hold_up_no_drain(plane: ControlPlane, applied: Applied) -> None:
    applied("helm")
    plane.wait_until(lambda: len(pods_of(plane, "helm", "pgcat")) == 2, "both pods are there")
    pods = pods_of(plane, "helm", "pgcat")
    for pod in pods:
        tell(plane, pod, {"phase": "Running"})
    assert [evict(plane, pod) for pod in pods] == [201, 201]


# The autoscaler. Nothing is measured here: what it does without figures is to keep to its bounds.


def replicas(plane: ControlPlane, namespace: str) -> int:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/permify"
    return int(plane.call("GET", path)["spec"]["replicas"])


def test_the_autoscaler_scales_and_an_apply_leaves_its_number_alone(
    plane: ControlPlane, tmp_path: Path
) -> None:
    answers = {**STANDALONE, "permify_replicas": 3, "permify_max_replicas": 4}
    deploy = deployment(tmp_path / "deploy", "autoscaled", answers)
    plane.apply(deploy)
    plane.wait_until(lambda: replicas(plane, "autoscaled") == 3, "it scales to its minimum")
    plane.kubectl("-n", "autoscaled", "scale", "deployment/permify", "--replicas=4")
    again = plane.apply(deploy)
    assert again.accepted, again.errors
    assert replicas(plane, "autoscaled") == 4


# The README's commands.


class Readme:
    """Runs the commands of a deployment's README; what is not Kubernetes' is replaced."""

    def __init__(self, plane: ControlPlane, deploy: Path, folder: Path):
        self.plane, self.deploy = plane, deploy
        self.password = folder / "password"
        self._programs = folder / "programs"
        self._programs.mkdir()
        self._replace("sleep", "")
        self._replace("psql", "")
        self._replace("pgcat-stack", "")

    def becomes(self, updated: Path) -> None:
        """What `copier update` will make of the deployment."""
        self._replace("copier", f"rm -r -- * && cp -R '{updated}/.' .")

    @property
    def page(self) -> str:
        return (self.deploy / "README.md").read_text()

    def _replace(self, name: str, script: str) -> None:
        path = self._programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def updates(self, data: str, then: str) -> None:
        """An update, and then the commands that the page had before it."""
        page = self.page
        self.run(f"copier update --trust --defaults --vcs-ref=:current: --data {data}")
        self.runs(page, then)

    def run(self, text: str) -> None:
        """The block of commands that has this text in it; fails when a command does, or warns."""
        self.runs(self.page, text)

    def runs(self, page: str, text: str) -> None:
        """The same of a page that is no longer there."""
        blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        block = next(block for block in blocks if text in block).replace("FILE", str(self.password))
        path = f"{self._programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-eu", "-c", block],
            cwd=self.deploy,
            env={**self.plane.environment, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{block}\n{done.stdout}{done.stderr}"


def secret(plane: ControlPlane, namespace: str, name: str) -> bytes:
    data = plane.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
    return base64.b64decode(data["password"])


def start(plane: ControlPlane, folder: Path, namespace: str, answers: dict[str, Any]) -> Readme:
    readme = Readme(plane, deployment(folder / "deploy", namespace, answers), folder)
    readme.password.write_text("first\n")
    if answers.get("secrets") == "external-secrets":
        plane.kubectl("apply", "-f", readme.deploy / "kubernetes" / "namespace.yaml")
    else:
        readme.run("create secret generic permify-database")
    readme.run("kubectl apply -k .")
    return readme


def built(plane: ControlPlane, deploy: Path) -> set[str]:
    """What kustomize builds for a namespace, by `Kind/name`."""
    done = plane.kubectl("kustomize", deploy)
    assert done.accepted, done.errors
    objects = [one for one in yaml.safe_load_all(done.out) if one["kind"] != "Namespace"]
    return {f"{one['kind']}/{one['metadata']['name']}" for one in objects}


@pytest.mark.parametrize("topology", drawn(TOPOLOGIES, {"standalone", "direct"}))
def test_start_and_rotation_by_the_readme(topology: str, plane: ControlPlane, tmp_path: Path) -> None:
    namespace = f"readme-{topology}"
    with every_pod_gets_ready(plane, namespace):
        readme = start(plane, tmp_path, namespace, TOPOLOGIES[topology])
        assert secret(plane, namespace, "permify-database") == b"first"

        def serving() -> set[str]:
            return {
                pod["metadata"]["name"]
                for pod in plane.pods(namespace)
                if names([pod]) != ["permify-migrate"]
            }

        before = serving()
        readme.password.write_text("second\n")
        readme.run("permify-database --from-file=password=/dev/stdin \\\n")
        assert secret(plane, namespace, "permify-database") == b"second"
        plane.wait_until(
            lambda: (
                not before
                & {
                    pod["metadata"]["name"]
                    for pod in plane.pods(namespace)
                    if names([pod]) != ["permify-migrate"]
                }
            ),
            "every pod is replaced",
        )


def test_a_deployment_scales_the_pods_that_it_has_before_it_replaces_them(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """So more PgCat with smaller pools are for a while more with the larger ones: what an update warns of."""
    namespace = "scaled"
    with every_pod_gets_ready(plane, namespace):
        start(plane, tmp_path, namespace, STANDALONE)
        sets = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
        (old,) = (
            each["metadata"]["name"]
            for each in plane.call("GET", sets)["items"]
            if each["metadata"]["name"].startswith("pgcat-")
        )
        more = deployment(tmp_path / "more", namespace, {**STANDALONE, "pgcat_replicas": 3})
        assert plane.kubectl("apply", "-k", more).accepted

        def events() -> list[str]:
            found = plane.call("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
            return [each["message"] for each in found if each["reason"] == "ScalingReplicaSet"]

        plane.wait_until(lambda: f"Scaled up replica set {old} from 2 to 3" in events(), "it is scaled")


DELETE = "delete --cascade=foreground deployment/pgcat"
MOVES: dict[str, dict[str, Any]] = {
    "with kubectl alone": {},
    "with operators": {"secrets": "external-secrets", **OPERATOR},
}


@pytest.mark.parametrize("how", drawn(MOVES, {"with kubectl alone"}))
def test_the_move_to_direct_pooling_and_back_by_the_readme(
    how: str, plane: ControlPlane, tmp_path: Path
) -> None:
    namespace = f"moved-{how.replace(' ', '-')}"
    answers = {**STANDALONE, **MOVES[how]}
    operators = bool(MOVES[how])
    # Made by the commands under Start, and not by an apply.
    secrets = set() if operators else {"Secret/permify-database", "Secret/pgcat-admin"}
    with every_pod_gets_ready(plane, namespace):
        readme = start(plane, tmp_path, namespace, answers)
        begun = plane.objects(namespace)
        assert begun.keys() == built(plane, readme.deploy) | secrets

        readme.becomes(deployment(tmp_path / "direct", namespace, {**answers, "pooling": "direct"}))
        moving = readme.page
        readme.updates("pooling=direct", "copy_policy()")
        readme.runs(moving, DELETE)
        assert not pods_of(plane, namespace, "pgcat")
        # What nothing uses any more is what the page names.
        left = plane.objects(namespace).keys() - built(plane, readme.deploy) - {"Secret/permify-database"}
        admin = "ExternalSecret/pgcat-admin" if operators else "Secret/pgcat-admin"
        of_names_with_a_hash = {name for name in begun if name.startswith(("ConfigMap/", "Job/"))}
        assert left == {admin} | of_names_with_a_hash
        assert len(of_names_with_a_hash) == 3 + operators  # and the dashboard
        assert (
            "the ExternalSecret `pgcat-admin`" in moving
            if operators
            else "the Secret `pgcat-admin`" in moving
        )
        assert "Old ConfigMaps and the old migration Job may stay" in moving
        deleted = plane.kubectl("-n", namespace, "delete", *left)
        assert deleted.accepted, deleted.errors

        readme.becomes(deployment(tmp_path / "back", namespace, answers))
        readme.updates("pooling=pgcat", "copy_policy()")
        assert len(pods_of(plane, namespace, "pgcat")) == 2
        assert plane.objects(namespace).keys() >= built(plane, readme.deploy) | secrets


@pytest.mark.parametrize("how", drawn(MOVES, {"with operators"}))
def test_the_move_to_sidecars_and_back_by_the_readme(how: str, plane: ControlPlane, tmp_path: Path) -> None:
    namespace = f"sidecars-{how.replace(' ', '-')}"
    answers = {**STANDALONE, **MOVES[how]}
    sidecars = {**answers, "topology": "sidecar"}
    secrets = set() if MOVES[how] else {"Secret/permify-database", "Secret/pgcat-admin"}
    with every_pod_gets_ready(plane, namespace):
        readme = start(plane, tmp_path, namespace, answers)

        def left() -> set[str]:
            """What is there and not rendered, but for what earlier states of the ConfigMaps left."""
            there = plane.objects(namespace).keys() - built(plane, readme.deploy)
            return {name for name in there if not name.startswith("ConfigMap/")} - secrets

        readme.becomes(deployment(tmp_path / "sidecars", namespace, sidecars))
        before = readme.page
        readme.updates("topology=sidecar", "copy_policy()")
        plane.wait_until(
            lambda: all(
                any(one["name"] == "pgcat" for one in pod["spec"]["initContainers"])
                for pod in pods_of(plane, namespace, "permify")
            ),
            "every pod of Permify has a PgCat",
        )
        assert {"Deployment/pgcat", "Service/pgcat", "NetworkPolicy/permify-moving"} <= left()
        readme.runs(before, DELETE)
        assert not pods_of(plane, namespace, "pgcat")
        assert left() == set()

        readme.becomes(deployment(tmp_path / "back", namespace, answers))
        readme.updates("topology=standalone", "copy_policy()")
        assert len(pods_of(plane, namespace, "pgcat")) == 2
        assert left() == set()
        assert plane.objects(namespace).keys() >= built(plane, readme.deploy)


def answered(command: str) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, value in re.findall(r"--data (\w+)=(\S+)", command)}


@pytest.mark.parametrize(
    ("permify_replicas", "steps_told"), [pytest.param(12, [2], marks=repeats), (30, [1, 1])]
)
def test_a_move_for_which_pools_are_too_large(
    permify_replicas: int, steps_told: list[int], plane: ControlPlane, tmp_path: Path
) -> None:
    """With 12 pods the new pools are smaller for a while, with 30 the old ones are first."""
    namespace = f"room-{permify_replicas}"
    answers: dict[str, Any] = {**STANDALONE, "permify_replicas": permify_replicas}
    with every_pod_gets_ready(plane, namespace):
        readme = start(plane, tmp_path, namespace, answers)
        page, told = readme.page, []

        def steps() -> list[str]:
            return re.findall(r"^copier update .*[^&\n ]", section(page, "Move to sidecars"), re.MULTILINE)

        def update(command: str) -> None:
            """The block of commands that begins with this one."""
            nonlocal answers
            answers = {**answers, **answered(command)}
            readme.becomes(deployment(tmp_path / "updated", namespace, answers))
            readme.runs(section(page, "Move to sidecars"), command)

        while "copy_policy()" not in section(page, "Move to sidecars"):
            told.append(len(steps()))
            update(steps()[0])
            page = readme.page
        told.append(len(steps()))
        assert told == steps_told
        move, *last = steps()
        update(move)
        readme.runs(section(page, "Move to sidecars"), "copy_policy()")
        assert len(pods_of(plane, namespace, "permify")) == permify_replicas
        readme.runs(section(page, "Move to sidecars"), DELETE)
        assert not pods_of(plane, namespace, "pgcat")
        for command in last:
            update(command)
        assert answers["topology"] == "sidecar" and not answers.get("writer_pool_size")
        there = {name for name in plane.objects(namespace) if not name.startswith(("ConfigMap/", "Secret/"))}
        assert there == {name for name in built(plane, readme.deploy) if not name.startswith("ConfigMap/")}


@pytest.mark.parametrize(
    ("before", "after", "title"),
    [
        (STANDALONE, {"topology": "sidecar"}, "Move to sidecars"),
        pytest.param(
            {**STANDALONE, "topology": "sidecar"},
            {"topology": "standalone"},
            "Move to PgCat in pods of its own",
            marks=repeats,
        ),
    ],
)
def test_a_move_is_given_up_by_the_readme(
    before: dict[str, Any], after: dict[str, Any], title: str, plane: ControlPlane, tmp_path: Path
) -> None:
    namespace = f"given-up-{after['topology']}"
    with every_pod_gets_ready(plane, namespace):
        readme = start(plane, tmp_path, namespace, before)
        begun, page = plane.objects(namespace).keys(), readme.page
        readme.becomes(deployment(tmp_path / "after", namespace, {**before, **after}))
        (update,) = re.findall(r"^copier update .*$", section(page, title), re.MULTILINE)
        readme.run(update)
        # It stops before anything is deleted.
        (block,) = (each for each in code_blocks(section(page, title)) if "copy_policy()" in each)
        readme.runs(
            f"```bash\n{block.partition('sleep')[0].rstrip().removesuffix('&&')}\n```\n", "copy_policy()"
        )

        readme.becomes(deployment(tmp_path / "before", namespace, before))
        (give_up,) = (each for each in code_blocks(section(page, title)) if "git reset" in each)
        # git brings the files back, in the shell that has the function.
        function = block.partition("pgcat-stack validate")[0]
        back = re.sub(r"git reset .* && git clean [^&]* &&", "copier &&", give_up)
        assert back != give_up
        readme.runs(f"```bash\n{function}{back}```\n", "copier")
        there = {name for name in plane.objects(namespace) if not name.startswith("ConfigMap/")}
        assert there == {name for name in begun if not name.startswith("ConfigMap/")}
