from __future__ import annotations

import pytest

from cases import DOCKER, HELM, SIDECAR, STANDALONE, codes, edit, one, rendered
from pgcat_stack.build import names

PGCAT_POD = "kubernetes/pgcat-deployment.yaml"
PERMIFY_POD = "kubernetes/permify-deployment.yaml"
SERVICE = "kubernetes/pgcat-service.yaml"
KUSTOMIZATION, COMPOSE = "kustomization.yaml", "compose.yaml"
OTHER = "apiVersion: example.com/v1\nkind: Other\nmetadata: {name: %s}\nspec: {matchLabels: {'a b': ' '}}\n"
L63, L64 = "a" * 63, "a" * 64

WRONG = [
    # answers, file, old, new, codes
    (STANDALONE, KUSTOMIZATION, "^namespace: .*", 'namespace: "a\\n"', {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^namespace: .*", "namespace: Permify", {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^namespace: .*", f"namespace: {L64}", {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^namespace: .*", f"namespace: {L63}", set()),
    (STANDALONE, KUSTOMIZATION, "^resources:", f"namePrefix: {'a' * 57}-\nresources:", {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", f"namePrefix: {'a' * 30}-\nresources:", set()),
    (STANDALONE, KUSTOMIZATION, "^resources:", "namePrefix: 1-\nresources:", {"PS908"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", "namePrefix: A-\nresources:", {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", f"nameSuffix: -{L63}\nresources:", {"PS906"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", "commonLabels: {a: 'b '}\nresources:", {"PS907"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", "labels: [{pairs: {'a b': c}}]\nresources:", {"PS907"}),
    (STANDALONE, KUSTOMIZATION, "^resources:", "commonAnnotations: {A/b: 'c d'}\nresources:", set()),
    (STANDALONE, KUSTOMIZATION, "^resources:", "commonAnnotations: {'a b': c}\nresources:", {"PS907"}),
    (STANDALONE, PGCAT_POD, "    spec:\n", '    spec:\n      priorityClassName: "high "\n', {"PS906"}),
    (STANDALONE, PGCAT_POD, "    spec:\n", "    spec:\n      priorityClassName: high.er-1\n", set()),
    (STANDALONE, PGCAT_POD, "    spec:\n", "    spec:\n      nodeSelector: {a.b/c: ' d'}\n", {"PS907"}),
    (STANDALONE, PGCAT_POD, "    spec:\n", "    spec:\n      hostname: a.b\n", {"PS906"}),
    (STANDALONE, SERVICE, "^metadata:\n", "metadata:\n  annotations: {'a b': c}\n", {"PS907"}),
    (STANDALONE, SERVICE, "^metadata:\n", "metadata:\n  annotations: {Ab.C/d_E: ' any '}\n", set()),
    (
        STANDALONE,
        SERVICE,
        "^metadata:\n",
        f"metadata:\n  annotations: {{a: '{'x' * 263_000}'}}\n",
        {"PS907"},
    ),
    (STANDALONE, PGCAT_POD, "^  name: pgcat\n", '  name: "pgcat "\n', {"PS906"}),
    (STANDALONE, PGCAT_POD, "^  name: pgcat\n", f"  name: {'.'.join([L63] * 3)}\n", set()),
    (
        STANDALONE,
        PERMIFY_POD,
        "          env:\n",
        "          env:\n            - {name: 1A, value: x}\n",
        {"PS908"},
    ),
    (
        STANDALONE,
        PERMIFY_POD,
        "          env:\n",
        "          env:\n            - {name: A=B, value: x}\n",
        {"PS906"},
    ),
    (
        STANDALONE,
        PERMIFY_POD,
        "          env:\n",
        "          env:\n            - {name: a.b-c, value: x}\n",
        set(),
    ),
    (STANDALONE, PERMIFY_POD, "name: http$", "name: more-than-15-char", {"PS906"}),
    (STANDALONE, SERVICE, "^  name: pgcat\n", "  name: 1pgcat\n", {"PS908"}),
    (STANDALONE, SERVICE, "^  name: pgcat\n", "  name: pg.cat\n", {"PS906"}),
    (STANDALONE, SERVICE, "^  name: pgcat\n", f"  name: {L64}\n", {"PS906"}),
    (STANDALONE, SERVICE, "^  selector:\n", "  selector:\n    a: b c\n", {"PS907"}),
    (DOCKER, COMPOSE, "^services:\n", "services:\n  'a b': {image: x:1}\n", {"PS906"}),
    (DOCKER, COMPOSE, "^services:\n", "services:\n  A_b.c-1: {image: x:1}\n", set()),
    (DOCKER, COMPOSE, "^services:\n", "name: 'My Stack'\nservices:\n", {"PS906"}),
    (DOCKER, COMPOSE, "^services:\n", "name: ${NAME:-My Stack}\nservices:\n", set()),
    (DOCKER, COMPOSE, "^services:\n", "networks: {'a/b': {}}\nservices:\n", {"PS906"}),
]


@pytest.mark.parametrize(("answers", "file", "old", "new", "expected"), WRONG)
def test_names_and_labels(
    answers: dict[str, object], file: str, old: str, new: str, expected: set[str]
) -> None:
    files = edit(rendered(answers), file, old, new)
    assert codes(files, "PS906", "PS907", "PS908") == expected


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, HELM, DOCKER])
def test_what_is_rendered_has_good_names(answers: dict[str, object]) -> None:
    assert codes(rendered(answers), "PS906", "PS907", "PS908") == set()


def test_the_message_shows_the_blank_and_says_what_to_do() -> None:
    files = edit(
        rendered(STANDALONE), PGCAT_POD, "    spec:\n", '    spec:\n      priorityClassName: "high\\n"\n'
    )
    finding = one(files, "PS906")
    assert finding.message.startswith("priorityClassName 'high\\n' must be lowercase letters")
    assert finding.fix == "remove the blanks around it" and finding.path == PGCAT_POD


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (OTHER % "a.b", set()),
        (OTHER % "'a b'", {"PS906"}),
        ("apiVersion: example.com/v1\nkind: Other\nmetadata: {name: a, labels: {a: ' '}}\n", {"PS907"}),
        ("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: 'system:a B'}\n", set()),
        ("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a/b}\n", {"PS906"}),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {A_b.c-1: x, '.d': y}\n", set()),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a b: x}\n", {"PS906"}),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {..a: x}\n", {"PS906"}),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a/b: x}\n", {"PS906"}),
        (f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {'a' * 53}}}\n", {"PS906"}),
        (f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {'a' * 52}}}\n", set()),
        (f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {L64}}}\n", {"PS906"}),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n", {"PS906"}),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {app.kubernetes.io/name: ''}}\n",
            set(),
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
            "spec: {podSelector: {matchExpressions: [{key: a b, operator: Exists}]}}\n",
            {"PS907"},
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
            "spec: {podSelector: {matchLabels: {a: b/c}}}\n",
            {"PS907"},
        ),
    ],
)
def test_other_objects(document: str, expected: set[str]) -> None:
    files = edit(
        rendered(STANDALONE), KUSTOMIZATION, "^resources:\n", "resources:\n  - kubernetes/other.yaml\n"
    )
    assert codes({**files, "kubernetes/other.yaml": document}, "PS906", "PS907", "PS908") == expected


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (names.dns_label, ["a", "1", "a-1", L63], ["", "-", "a-", "A", "a.b", "a\n", "ü", L64]),
        (names.dns_subdomain, ["a.b", "1.2", "a" * 253], [".", "a..b", "a.-b", "a_b", "a" * 254]),
        (names.dns_1035_label, ["a1", L63], ["1a", "a.b", L64]),
        (names.path_segment, ["system:x", "A b"], [".", "..", "a/b", "a%b"]),
        (names.qualified_name, ["A", "a/B", "a.b/c_d.e", L63], ["", "/a", "a/", "A/b", "a/b/c", "-a", L64]),
        (names.annotation_key, ["A.B/c", "\u212a/b"], ["a b", "/a"]),
        (names.label_value, ["", "a", "A_b.c", L63], ["a/b", "a ", "-a", L64]),
        (names.port_name, ["a", "http-1", "1a", "a" * 15], ["", "1", "a--b", "-a", "A", "a" * 16]),
        (names.variable_name, ["a b", "1", "~"], ["", "a=b", "ü", "a\n"]),
        (names.strict_variable_name, ["a", "_", "-.a", "A.B"], ["1a", "a b", ".", "..a", ""]),
        (names.config_key, ["a", ".a", "A_b", "a" * 253], ["", ".", "..", "..a", "a b", "a" * 254]),
        (names.compose_name, ["a", "A.b_-"], ["", "a b", "a\n"]),
        (names.compose_project, ["a", "1_-b"], ["", "A", "-a", "a.b"]),
    ],
)
def test_the_rules(rule: object, good: list[str], bad: list[str]) -> None:
    """As apimachinery's: compared with it over 60,000 texts when they were written."""
    assert callable(rule)
    assert [text for text in good if rule(text)] == []
    assert [text for text in bad if not rule(text)] == []
