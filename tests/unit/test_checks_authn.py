"""PS319 and PS320, and what the environment makes of `authn` (PS313, PS316)."""

from __future__ import annotations

import pytest

from cases import (
    CHART_ENVIRONMENT,
    COMPOSE,
    COMPOSE_ENVIRONMENT,
    DIRECT,
    DOCKER,
    HELM,
    PERMIFY,
    PERMIFY_POD,
    POD_ENVIRONMENT,
    SIDECAR,
    STANDALONE,
    VALUES,
    codes,
    edit,
    findings,
    one,
    rendered,
)

# Where `authn` is written by hand; what is rendered for preshared keys is below.
STANDALONE, DIRECT, SIDECAR, DOCKER, HELM = (
    {**answers, "authn": "none"} for answers in (STANDALONE, DIRECT, SIDECAR, DOCKER, HELM)
)
COMPONENT = {**SIDECAR, "permify_install": "none"}
CODES = ("PS313", "PS316", "PS319", "PS320")
OIDC = "issuer: 'https://id', audience: permify, backoff_frequency: 5s"


def file(authn: str) -> tuple[str, str, str]:
    """The section in permify.yaml."""
    return PERMIFY, "^database:", f"authn: {{{authn}}}\ndatabase:"


def compose(**variables: str) -> tuple[str, str, str]:
    """Variables of Permify's service, as they are written."""
    lines = [f"      PERMIFY_AUTHN_{name}: {value}\n" for name, value in variables.items()]
    return COMPOSE, COMPOSE_ENVIRONMENT, "".join(lines)


def pod(**variables: str) -> tuple[str, str, str]:
    """Variables of Permify's container: the rest of the entry after its name."""
    lines = [f"            - {{name: PERMIFY_AUTHN_{name}{rest}}}\n" for name, rest in variables.items()]
    return PERMIFY_POD, POD_ENVIRONMENT, "".join(lines)


def chart(authn: str) -> tuple[str, str, str]:
    """The section in the chart's values."""
    return VALUES, "^app:", f"app:\n  authn: {{{authn}}}"


def extra(**variables: str) -> tuple[str, str, str]:
    """Variables in the chart's values, as `pod` has them."""
    lines = [f"  - {{name: PERMIFY_AUTHN_{name}{rest}}}\n" for name, rest in variables.items()]
    return VALUES, CHART_ENVIRONMENT, "".join(lines)


SECRET = ", valueFrom: {secretKeyRef: {name: permify-authn, key: keys}}"
ON = ', value: "true"'
PRESHARED = file("enabled: true, method: preshared")


@pytest.mark.parametrize(
    ("answers", "changes", "expected"),
    [
        # permify.yaml
        (STANDALONE, [PRESHARED], {"PS319"}),
        (DIRECT, [PRESHARED], {"PS319"}),
        (STANDALONE, [file("enabled: true")], {"PS319"}),
        (STANDALONE, [file("enabled: 'TRUE', method: preshared")], {"PS319"}),
        (STANDALONE, [file("enabled: true, method: preshared, preshared: {keys: []}")], {"PS319"}),
        (STANDALONE, [file("enabled: true, method: preshared, preshared: {keys: ''}")], {"PS319"}),
        (STANDALONE, [file("enabled: true, method: preshared, preshared: {keys: ['']}")], {"PS319"}),
        (STANDALONE, [file("enabled: true, method: preshared, preshared: {keys: 'a,'}")], {"PS319"}),
        (STANDALONE, [file("enabled: true, method: preshared, preshared: {keys: [a]}")], set()),
        (STANDALONE, [file(f"enabled: true, method: oidc, oidc: {{{OIDC}}}")], set()),
        (STANDALONE, [file("enabled: true, method: oidc")], {"PS319"}),
        (STANDALONE, [file(f"enabled: true, method: oidc, oidc: {{{OIDC}, valid_methods: []}}")], {"PS319"}),
        (
            STANDALONE,
            [file(f"enabled: true, method: oidc, oidc: {{{OIDC}, backoff_interval: 0s}}")],
            {"PS319"},
        ),
        (
            STANDALONE,
            [file(f"enabled: true, method: oidc, oidc: {{{OIDC}, backoff_max_retries: 0}}")],
            {"PS319"},
        ),
        *(
            (
                STANDALONE,
                [file(f"enabled: true, method: oidc, oidc: {{{OIDC.replace(what, '')}}}")],
                {"PS319"},
            )
            for what in ("issuer: 'https://id', ", "audience: permify, ", ", backoff_frequency: 5s")
        ),
        (STANDALONE, [file("enabled: false, method: preshared")], set()),
        (STANDALONE, [file("preshared: {keys: [a]}")], {"PS320"}),
        (STANDALONE, [file("oidc: {issuer: 'https://id'}")], {"PS320"}),
        (STANDALONE, [file("enabled: false, preshared: {keys: []}")], set()),
        # the environment on Kubernetes
        (STANDALONE, [PRESHARED, pod(PRESHARED_KEYS=SECRET)], set()),
        (STANDALONE, [PRESHARED, pod(PRESHARED_KEYS=", value: ''")], {"PS319"}),
        (STANDALONE, [PRESHARED, pod(PRESHARED_KEYS="")], {"PS319"}),
        (STANDALONE, [PRESHARED, pod(ENABLED=", value: ''")], {"PS319"}),
        (STANDALONE, [PRESHARED, pod(OIDC_ISSUER=SECRET)], {"PS319"}),
        (SIDECAR, [pod(PRESHARED_KEYS=SECRET)], {"PS320"}),
        (SIDECAR, [pod(OIDC_ISSUER=", value: 'https://id'")], {"PS320"}),
        (SIDECAR, [pod(PRESHARED_KEYS=SECRET, ENABLED=SECRET)], set()),
        (SIDECAR, [pod(PRESHARED_KEYS=SECRET, METHOD=SECRET, ENABLED=ON)], set()),
        (STANDALONE, [pod(ENABLED=ON, METHOD=", value: preshared", PRESHARED_KEYS=SECRET)], set()),
        (STANDALONE, [pod(ENABLED=ON, PRESHARED_KEYS=SECRET)], {"PS319"}),
        (
            STANDALONE,
            [
                file("enabled: true, method: oidc, oidc: {valid_methods: [RS256]}"),
                pod(
                    OIDC_ISSUER=", value: 'https://id'",
                    OIDC_AUDIENCE=SECRET,
                    OIDC_BACKOFF_FREQUENCY=SECRET,
                    OIDC_BACKOFF_INTERVAL=", value: 3s",
                    OIDC_BACKOFF_RETRIES=", value: '3'",
                ),
            ],
            set(),
        ),
        (
            STANDALONE,
            [
                file(f"enabled: true, method: oidc, oidc: {{{OIDC}}}"),
                pod(OIDC_BACKOFF_RETRIES=", value: '0'"),
            ],
            {"PS319"},
        ),
        (
            STANDALONE,
            [
                file("enabled: true, method: oidc, oidc: {backoff_frequency: 5s}"),
                pod(OIDC_AUDIENCE=SECRET, OIDC_VALID_METHODS=SECRET, OIDC_REFRESH_INTERVAL=SECRET),
            ],
            {"PS319"},
        ),
        (STANDALONE, [PRESHARED, pod(PRESHARED=SECRET)], {"PS319"}),  # no variable of Permify
        (STANDALONE, [pod(OIDC=", value: 'https://id'")], set()),
        # what turns it off
        (STANDALONE, [pod(ENABLED=", value: 'false'")], set()),
        (
            STANDALONE,
            [
                file("enabled: true, method: preshared, preshared: {keys: [a]}"),
                pod(ENABLED=", value: 'false'"),
            ],
            {"PS320"},
        ),
        (STANDALONE, [PRESHARED, pod(ENABLED=", value: 'false'")], {"PS320"}),
        # values that Permify does not take
        (STANDALONE, [pod(ENABLED=", value: 'yes'")], {"PS313"}),
        (STANDALONE, [pod(ENABLED=ON, METHOD=", value: Preshared")], {"PS313"}),
        (STANDALONE, [pod(ENABLED=ON, OIDC_BACKOFF_FREQUENCY=", value: '5'")], {"PS313"}),
        # Compose
        (DOCKER, [compose(ENABLED="true")], {"PS319"}),
        (DOCKER, [PRESHARED, compose(PRESHARED_KEYS="${KEYS:?}")], set()),
        (DOCKER, [PRESHARED, compose(PRESHARED_KEYS="${KEYS:-}")], set()),
        (DOCKER, [PRESHARED, compose(PRESHARED_KEYS="")], set()),  # of the shell that starts it
        (DOCKER, [PRESHARED, compose(PRESHARED_KEYS="''")], {"PS319"}),
        (DOCKER, [compose(PRESHARED_KEYS="${KEYS:?}")], {"PS320"}),
        (DOCKER, [compose(ENABLED="${ON:-false}", PRESHARED_KEYS="${KEYS:?}")], set()),
        (DOCKER, [PRESHARED, (COMPOSE, r'    command: \["serve", .*\n', "")], {"PS319"}),
        # the chart
        (HELM, [chart("enabled: true, preshared: {keys: ['']}")], {"PS319"}),
        (HELM, [chart("enabled: true, method: '', preshared: {keys_secret: keys}")], {"PS319"}),
        (
            HELM,
            [chart("enabled: true, preshared: {keys_secret: keys}"), extra(ENABLED=", value: ''")],
            {"PS320"},
        ),
        (
            HELM,
            [chart("enabled: true, preshared: {keys_secret: keys}"), extra(PRESHARED_KEYS=", value: ''")],
            {"PS319"},
        ),
        (HELM, [extra(PRESHARED_KEYS=", value: ''")], set()),
        (HELM, [chart("enabled: true")], {"PS319"}),
        (HELM, [chart("enabled: true, preshared: {keys_secret: keys}")], set()),
        (HELM, [chart("enabled: true"), extra(PRESHARED_KEYS=SECRET)], set()),
        (HELM, [chart("preshared: {keys_secret: keys}")], {"PS320"}),
        (HELM, [extra(PRESHARED_KEYS=SECRET)], {"PS320"}),
        (HELM, [chart("preshared: {keys_secret: keys}"), extra(ENABLED=ON)], {"PS319"}),
        (HELM, [extra(ENABLED=ON, METHOD=", value: preshared", PRESHARED_KEYS=SECRET)], set()),
        (HELM, [chart("enabled: true, method: Preshared")], {"PS316"}),
        (HELM, [chart(f"enabled: true, method: oidc, oidc: {{{OIDC}, backoff_max_retries: 0}}")], set()),
        # not judged
        (
            STANDALONE,
            [PRESHARED, (PERMIFY_POD, r"args: \[serve", "args: [serve, --authn-preshared-keys=a")],
            set(),
        ),
        (STANDALONE, [PRESHARED, (PERMIFY_POD, r"args: \[serve", "args: [repair")], set()),
        (COMPONENT, [PRESHARED], set()),
        (
            STANDALONE,
            [
                PRESHARED,
                (
                    PERMIFY_POD,
                    "(?<=Secret does not have.\n          )(?=env:)",
                    "envFrom: [{secretRef: {name: a}}]\n          ",
                ),
            ],
            set(),
        ),
        (STANDALONE, [pod(PRESHARED_KEYS=SECRET), (PERMIFY, "^database:", "database: ]")], set()),
    ],
)
def test_authn(answers, changes, expected):
    files = rendered(answers)
    for path, old, new in changes:
        files = edit(files, path, old, new)
    found = findings(files, *CODES)
    assert {finding.code for finding in found} == expected
    for finding in found:
        assert "\n" not in finding.message + finding.fix and finding.fix


def place(files, code):
    finding = one(files, code)
    return files[finding.path].splitlines()[finding.line - 1].strip()


def test_where_keys_are_missing():
    files = edit(rendered(STANDALONE), *file("\n  enabled: true,\n  method: preshared"))
    assert place(files, "PS319").startswith("authn:")
    files = edit(
        rendered(STANDALONE), *file("\n  enabled: true,\n  method: preshared,\n  preshared: {keys: []}")
    )
    assert place(files, "PS319").startswith("preshared:")
    files = edit(rendered(DOCKER), *compose(ENABLED="true"))
    assert place(files, "PS319").startswith("PERMIFY_AUTHN_ENABLED")
    files = edit(files, *file("\n  method: preshared,\n  preshared: {keys: []}"))
    assert place(files, "PS319").startswith("preshared:")


def test_where_the_chart_lacks_keys():
    files = edit(rendered(HELM), *chart("enabled: true"))
    assert place(files, "PS319").startswith("authn:")
    assert "app.authn.preshared.keys_secret" in one(files, "PS319").fix
    files = edit(rendered(HELM), *extra(ENABLED=ON))
    assert "PERMIFY_AUTHN_ENABLED" in place(files, "PS319")
    assert "enabled: true under app.authn" in one(files, "PS319").fix
    files = edit(rendered(HELM), *extra(ENABLED=ON, METHOD=", value: preshared"))
    assert "PERMIFY_AUTHN_ENABLED" in place(files, "PS319")
    assert "in extraEnvVars" in one(files, "PS319").fix


def test_which_variable_is_blamed():
    url = "            - {name: PERMIFY_DATABASE_URI, value: 'postgres://h/d'}\n"
    path, old, new = pod(METHOD=", value: preshared")
    files = edit(rendered(STANDALONE), path, old, new + url)
    found = findings(files, "PS313")
    assert found and all("PERMIFY_DATABASE_URI" in finding.fix for finding in found)
    files = edit(rendered(HELM), *extra(ENABLED=", value: 'yes'"))
    assert "remove PERMIFY_AUTHN_ENABLED; under app.authn" in one(files, "PS316").fix
    files = edit(rendered(HELM), *extra(OIDC_BACKOFF_RETRIES=", value: many"))
    assert "remove PERMIFY_AUTHN_OIDC_BACKOFF_RETRIES" in one(files, "PS316").fix


def test_arguments():
    files = edit(
        rendered(STANDALONE), PERMIFY_POD, r"args: \[serve", "args: [serve, --authn-preshared-keys=a"
    )
    assert one(files, "PS315").fix == "remove --authn-preshared-keys and set PERMIFY_AUTHN_PRESHARED_KEYS"


def test_an_empty_key():
    files = edit(rendered(DOCKER), *file("enabled: true, method: preshared, preshared: {keys: ['']}"))
    assert one(files, "PS319").fix == "remove the empty key"


def test_how_permify_gets_keys():
    assert "from a Secret" in one(edit(rendered(STANDALONE), *PRESHARED), "PS319").fix
    files = edit(rendered(DOCKER), *PRESHARED)
    assert "${PERMIFY_AUTHN_PRESHARED_KEYS:?} under environment" in one(files, "PS319").fix
    files = edit(files, *compose(PRESHARED_KEYS="secret-key"))
    assert "${PERMIFY_AUTHN_PRESHARED_KEYS:?}" in one(files, "PS703").fix


def test_where_authentication_is_off():
    files = edit(rendered(SIDECAR), *pod(PRESHARED_KEYS=SECRET))
    assert "PERMIFY_AUTHN_PRESHARED_KEYS" in place(files, "PS320")
    files = edit(files, *PRESHARED)
    assert codes(files, "PS320") == set()
    files = edit(files, *pod(ENABLED=", value: 'false'"))
    assert "PERMIFY_AUTHN_ENABLED" in place(files, "PS320")
    assert one(files, "PS320").fix == "remove PERMIFY_AUTHN_ENABLED"
