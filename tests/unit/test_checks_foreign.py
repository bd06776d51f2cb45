"""What is not the stack's, what cannot be read, and what kustomize and Compose do to the files later."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, ELSEWHERE, SIDECAR, STANDALONE, codes, edit, findings, load, one, rendered
from pgcat_stack.budget import plan

EVERY = ("PS",)
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
BUDGET = "budget.yaml"
COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
PGCAT_POD = "kubernetes/pgcat-deployment.yaml"
PERMIFY_POD = "kubernetes/permify-deployment.yaml"

FOREIGN_POD = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: redis
spec:
  selector:
    matchLabels: {app: redis}
  template:
    metadata:
      labels: {app: redis}
    spec:
      hostNetwork: true
      containers:
        - name: redis
          image: redis
          securityContext: {privileged: true}
          volumeMounts:
            - {name: config, mountPath: /etc/redis}
      volumes:
        - name: config
          configMap: {name: from-elsewhere}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: report
spec:
  schedule: "0 4 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: report
              image: postgres:17
              command: [psql, -h, pgcat, -c, select 1]
"""
FOREIGN_POOL = """
[pools.shop]
pool_mode = "transaction"

[pools.shop.users.0]
username = "shop"
password = "${database_password}"
pool_size = 1

[pools.shop.shards.0]
database = "shop"
servers = [["db1", 5432, "primary"]]
"""


def listed(files, name, text):
    files = edit(files, KUSTOMIZATION, "resources:\n", f"resources:\n  - kubernetes/{name}\n")
    return {**files, f"kubernetes/{name}": text}


def test_a_foreign_service_is_its_owners_matter():
    more = "services:\n  redis:\n    image: redis\n    ports: ['6379:6379']\n    privileged: true\n"
    assert codes(edit(rendered(DOCKER), COMPOSE, "^services:\n", more), *EVERY) == set()


def test_foreign_pods_are_their_owners_matter():
    assert codes(listed(rendered(STANDALONE), "other.yaml", FOREIGN_POD), *EVERY) == set()


@pytest.mark.parametrize("service", ["postgres-primary", "bootstrap", "prometheus"])
def test_the_rendered_services_are_judged(service):
    files = edit(rendered(DOCKER), COMPOSE, f"^  {service}:\n", f"  {service}:\n    privileged: true\n")
    assert codes(files, "PS815") == {"PS815"}


def test_a_pool_of_another_application():
    files = rendered(STANDALONE)
    files[PGCAT] += FOREIGN_POOL
    assert codes(files, "PS4") == set()
    assert not codes(files, "PS509")


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, DOCKER], ids=["standalone", "sidecar", "docker"])
@pytest.mark.parametrize("path", [PGCAT, PERMIFY, BUDGET])
def test_of_a_broken_file_one_check_speaks(answers, path):
    files = rendered(answers)
    files[path] = "= [\n" if path == PGCAT else "a: [\n"
    assert {(f.code, f.path) for f in findings(files, *EVERY)} == {("PS103", path)}


@pytest.mark.parametrize(
    ("answers", "path"), [(DOCKER, COMPOSE), (STANDALONE, PERMIFY_POD), (DIRECT, PERMIFY_POD)]
)
def test_of_broken_workloads_one_check_speaks(answers, path):
    assert codes({**rendered(answers), path: "a: [\n"}, *EVERY) == {"PS103"}


def test_conflicts_alone_speak():
    files = edit(
        rendered(STANDALONE), PGCAT, r"^\[general\]", "<<<<<<< before\n[general]\n=======\n>>>>>>> after"
    )
    assert codes(files, *EVERY) == {"PS105"}


@pytest.mark.parametrize(("answers", "code"), [(STANDALONE, "PS430"), (SIDECAR, "PS430"), (DOCKER, "PS450")])
def test_nobody_advises_to_go_around_a_pgcat_whose_file_is_missing(answers, code):
    files = rendered(answers)
    del files[PGCAT]
    assert codes(files, *EVERY) == {code}


def test_a_byte_order_mark_is_named():
    files = rendered(STANDALONE)
    files[PGCAT] = "\ufeff" + files[PGCAT]
    found = one(files, "PS103")
    assert "byte order mark" in found.message and found.fix == "save it without"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("replicas: 1", "replicas: ${PERMIFY_REPLICAS:-1}", set()),
        ("replicas: 1", "replicas: ${PERMIFY_REPLICAS}", set()),
        ("replicas: 1", "replicas: ${PERMIFY_REPLICAS:-one}", {"PS904"}),
        ("  read_only: true\n", "  read_only: ${READ_ONLY:-true}\n", set()),
        ("  read_only: true\n", "  read_only: ${READ_ONLY:-false}\n", {"PS813"}),
        ("stop_grace_period: .*", "stop_grace_period: ${GRACE:-60s}", set()),
    ],
)
def test_variables_of_compose(old, new, expected):
    assert codes(edit(rendered(DOCKER), COMPOSE, old, new), *EVERY) == expected


@pytest.mark.parametrize("path", ["charts/x/templates/a.yaml", "docs/a.yaml", "ci.toml", "a.json"])
def test_files_of_others_may_be_anything(path):
    text = "{{- if .Values.x }}\na:  [ \n  {{ x }}\n{{- end }}\n"
    assert codes({**rendered(STANDALONE), path: text}, "PS1") == set()


@pytest.mark.parametrize("path", ["kubernetes/a.yaml", "compose.test.yml", "monitoring/b.yaml"])
def test_files_of_the_deployment_are_judged(path):
    assert codes({**rendered(STANDALONE), path: "a: [\n"}, "PS1") == {"PS103"}


def test_a_file_that_the_kustomization_reaches_is_judged():
    files = edit(rendered(STANDALONE), KUSTOMIZATION, "resources:\n", "resources:\n  - extra/\n")
    files |= {"extra/kustomization.yaml": "resources: [a.yaml]\n", "extra/a.yaml": "a: [\n"}
    assert "PS103" in codes(files, "PS1")


def test_a_conflict_in_a_code_block_is_an_example_but_for_copiers_own():
    conflict = "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> theirs\n"
    fenced = f"# Merging\n\n```text\n{conflict}```\n"
    assert codes({**rendered(STANDALONE), "docs/merging.md": fenced}, "PS1") == set()
    assert codes({**rendered(STANDALONE), "docs/merging.md": fenced + conflict}, "PS1") == {"PS105"}
    assert codes({**rendered(STANDALONE), "docs/merging.txt": fenced}, "PS1") == {"PS105"}
    of_copier = fenced.replace("HEAD", "before updating").replace("theirs", "after updating")
    assert codes({**rendered(STANDALONE), "docs/merging.md": of_copier}, "PS1") == {"PS105"}


def kustomized(text, answers=STANDALONE):
    files = rendered(answers)
    files[KUSTOMIZATION] += text
    return files


def test_replicas_of_the_kustomization_count():
    files = kustomized("replicas:\n  - {name: pgcat, count: 9}\n")
    counts = {use.instances.count for row in plan(load(files)).rows for use in row.uses}
    assert counts == {11} and "PS501" in codes(files)
    assert codes(kustomized("replicas:\n  - {name: pgcat, count: 2}\n"), *EVERY) == set()


def test_images_of_the_kustomization_count():
    files = kustomized("images:\n  - {name: ghcr.io/postgresml/pgcat, newTag: main}\n")
    found = one(files, "PS801")
    assert found.path == KUSTOMIZATION and "pgcat:main" in found.message
    assert load(files).pgcat_image == "ghcr.io/postgresml/pgcat:main"
    files = kustomized("images:\n  - {name: ghcr.io/postgresml/pgcat, newName: my/pgcat, newTag: v1.2.0}\n")
    assert load(files).pgcat_image == "my/pgcat:v1.2.0" and codes(files, *EVERY) == set()


def test_a_prefix_takes_the_service_away_from_the_uri():
    files = kustomized("namePrefix: prod-\n")
    assert codes(files, *EVERY) == {"PS404"}
    assert "prod-pgcat" in findings(files, "PS404")[0].fix
    files[PERMIFY] = files[PERMIFY].replace("@pgcat:", "@prod-pgcat:")
    assert codes(files, *EVERY) == set()
    assert codes(kustomized("nameSuffix: -a\n", SIDECAR), *EVERY) == set()


@pytest.mark.parametrize(
    "text",
    [
        "patches:\n  - patch: '[]'\n    target: {kind: Deployment}\n",
        "patchesJson6902:\n  - patch: '[]'\n    target: {kind: Deployment, name: pgcat, version: v1}\n",
    ],
)
def test_what_kustomize_does_unseen_is_named(text):
    files = kustomized(text)
    found = one(files, "PS436")
    assert (found.severity, found.path) == ("warning", KUSTOMIZATION)
    assert files[KUSTOMIZATION].splitlines()[found.line - 1].strip().split(":")[0] in text
    assert codes(files, *EVERY) == {"PS436"}


def test_names_without_a_hash_are_named():
    files = edit(
        rendered(STANDALONE),
        KUSTOMIZATION,
        "^generatorOptions:\n",
        "generatorOptions:\n  disableNameSuffixHash: true\n",
    )
    assert one(files, "PS436").path == KUSTOMIZATION
    assert codes(files, *EVERY) == {"PS436"}


def test_components_are_named():
    files = kustomized("components: [extra]\n")
    files["extra/kustomization.yaml"] = "kind: Component\n"
    assert "components" in one(files, "PS436").message


def test_a_fixed_name_is_on_purpose_where_others_deploy_permify():
    assert "disableNameSuffixHash" in rendered(ELSEWHERE)[KUSTOMIZATION]
    assert codes(rendered(ELSEWHERE), "PS436") == set()
    options = "  - name: pgcat\n    options:\n      disableNameSuffixHash: true\n"
    files = edit(rendered(STANDALONE), KUSTOMIZATION, "  - name: pgcat\n", options)
    assert codes(files, *EVERY) == {"PS436"}


def test_a_removed_namespace_is_named():
    files = edit(rendered(STANDALONE), KUSTOMIZATION, "^namespace: .*\n", "")
    assert "wherever kubectl points" in one(files, "PS436").message


@pytest.mark.parametrize("name", ["compose.override.yaml", "compose.override.yml"])
def test_an_override_is_named(name):
    files = {**rendered(DOCKER), name: "services: {}\n"}
    found = one(files, "PS454")
    assert (found.severity, found.path) == ("warning", name) and name in found.message
    assert codes(files, *EVERY) == {"PS454"}
