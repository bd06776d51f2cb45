"""The typed parts of a reading that tell who reaches whom: values, their places, and what is not read."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, ELSEWHERE, HELM, SIDECAR, STANDALONE, edit, load, rendered
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.policies import CILIUM
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.selectors import Selector, read_selector

EVERY = {
    **{"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT, "docker": DOCKER, "helm": HELM},
    "elsewhere": ELSEWHERE,
    "cilium": {
        **STANDALONE,
        "primary_host": "db.example.com",
        "replica_hosts": "",
        "database_policy": "cilium",
    },
    "probed": {**STANDALONE, "monitoring": "prometheus-operator", "probe": True},
    "collected": {**DOCKER, "advanced": True, "otlp_endpoint": "collector:4317"},
}
POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: web, ports: [{name: http, containerPort: 80}]}
"""
ODD = [5, "text", True, None, [], {}, [5], ["text"], [None], [[]], [{}], {"a": 5}, {5: [{}]}]


def of(text: str) -> Reading:
    """A deployment with one file of objects, beside a Deployment `web`."""
    listing = "resources: [web.yaml, more.yaml]\n"
    return load({"kustomization.yaml": listing, "web.yaml": POD, "more.yaml": text})


def gaps_of(reading: Reading):
    """Everything that the parts say they could not read."""
    parts = (*reading.scale_targets, *reading.disruption_budgets, *reading.kustomization_settings)
    found = [*reading.network.gaps, *reading.policies.gaps]
    found += [gap for part in parts for gap in part.gaps]
    return found + [gap for own in reading.own_selectors for gap in own.selector.gaps]


@pytest.mark.parametrize("answers", EVERY.values(), ids=EVERY.keys())
def test_everything_that_is_rendered_is_read(answers):
    assert gaps_of(load(rendered(answers))) == []


def test_each_part_is_made_once():
    reading = load(rendered(STANDALONE))
    for name in (
        "network",
        "policies",
        "kubernetes_services",
        "connections",
        "names",
        "labels",
        "expressions",
    ):
        assert getattr(reading, name) is getattr(reading, name), name
    assert reading.network.flows is reading.network.flows


# Selectors


@pytest.mark.parametrize(
    ("data", "labels", "selected"),
    [
        ({}, {"a": "b"}, True),
        (None, {}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchLabels": {"a": 5}}, {"a": "5"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {"a": "b"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}, {"a": "2"}, False),
        ({"matchExpressions": ["odd"]}, {}, False),
    ],
)
def test_which_labels_are_selected(data, labels, selected):
    assert read_selector(data, load(rendered(DOCKER)).compose.at).selects(labels) is selected


def test_a_selector_for_messages():
    assert Selector({"a": "b", "c": "d"}).text == "a=b,c=d"
    assert not Selector().asks


# Services


def test_a_service_and_its_pods():
    reading = of(
        "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: x}\nspec:\n"
        "  selector: {app: web}\n  ports:\n    - {port: 8080, targetPort: http}\n    - {port: 80}\n"
    )
    (service,) = reading.kubernetes_services
    assert service.pods == ()  # in another namespace
    assert list(service.host_names) == ["front", "front.x", "front.x.svc", "front.x.svc.cluster.local"]
    named, same = service.ports
    assert (named.outer, named.inner, named.location.line) == (8080, "http", 7)
    assert (same.outer, same.inner, same.location.line) == (80, 80, 8)
    assert (service.location.path, service.location.line) == ("more.yaml", 5)


def test_what_of_a_service_is_not_read():
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector: {app: web}\n  ports:\n"
    (service,) = of(text + "    - odd\n    - {port: 80, targetPort: 1.5}\n").kubernetes_services
    assert [pod.manifest.name for pod in service.pods] == ["web"]
    assert [(gap.location.line, gap.text) for gap in service.gaps] == [
        (7, "an entry of ports is not a mapping"),
        (8, "a port that is neither a number nor a name"),
    ]
    assert service.ports[1].inner is None


# Policies


def policy(spec: str, kind: str = "NetworkPolicy") -> Reading:
    group = "cilium.io/v2" if kind == CILIUM else "networking.k8s.io/v1"
    return of(f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}")


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("  podSelector: {}\n", ["Ingress"]),
        ("  podSelector: {}\n  egress: []\n", ["Ingress", "Egress"]),
        ("  podSelector: {}\n  policyTypes: [Egress]\n", ["Egress"]),
        ("  podSelector: {}\n  policyTypes: [odd]\n", []),
    ],
)
def test_the_directions_of_a_policy(spec, directions):
    (found,) = policy(spec).policies.all
    assert list(found.rules) == directions


def test_ports_and_peers_with_their_places():
    (found,) = policy(
        "  podSelector: {}\n  ingress:\n"
        "    - from:\n"
        "        - podSelector: {matchLabels: {app: web}}\n"
        "        - namespaceSelector: {}\n"
        "        - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n"
        "      ports:\n"
        "        - {port: 80, endPort: 90}\n"
        "        - {port: dns, protocol: UDP}\n"
        "        - {}\n"
    ).policies.all
    (rule,) = found.rules["Ingress"]
    assert [(port.span, port.name, port.text, port.location.line) for port in rule.ports] == [
        ((80, 90), "", "80 to 90", 12),
        (None, "dns", "dns (UDP)", 13),
        ((1, 65535), "", "every port", 14),
    ]
    assert [(peer.text, peer.location.line) for peer in rule.peers] == [
        ("pods with app=web of the same namespace", 8),
        ("any pod of any namespace", 9),
        ("addresses of '10.0.0.0/8'", 10),
    ]
    block = rule.peers[2].block
    assert block is not None and block.contains("10.2.0.1") and not block.contains("10.1.0.1")
    assert found.gaps == ()


@pytest.mark.parametrize(
    ("spec", "gap"),
    [
        ("  podSelector: odd\n", "a selector is not a mapping"),
        ("  podSelector: {}\n  ingress: odd\n", "ingress is not a list"),
        ("  podSelector: {}\n  ingress: [odd]\n", "a rule of ingress is not a mapping"),
        ("  podSelector: {}\n  ingress: [{ports: odd}]\n", "ports is not a list"),
        (
            "  podSelector: {}\n  ingress: [{ports: [odd]}]\n",
            "an entry of ports is not a port with a protocol",
        ),
        (
            "  podSelector: {}\n  ingress: [{ports: [{port: 1.5}]}]\n",
            "1.5 is neither ports nor the name of one",
        ),
        ("  podSelector: {}\n  ingress: [{from: [odd]}]\n", "a peer is not a mapping"),
        ("  podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: odd}}]}]\n", "'odd' is no network"),
    ],
)
def test_what_of_a_policy_is_not_read(spec, gap):
    (found,) = policy(spec).policies.gaps
    assert found.text.startswith(gap)
    assert found.location.path == "more.yaml" and found.location.line >= 5


def test_a_policy_of_cilium_in_the_same_shape():
    (found,) = policy(
        "  endpointSelector: {matchLabels: {k8s:app: web}}\n  egress:\n"
        "    - toFQDNs: [{matchName: db.example.com}]\n"
        '      toPorts: [{ports: [{port: "5432", protocol: TCP}]}]\n'
        "    - toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: dns}}]\n"
        '      toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchPattern: "*"}]}}]\n'
        "    - toEntities: [world]\n"
        "    - {}\n",
        CILIUM,
    ).policies.all
    assert found.of_cilium and found.selector.labels == {"app": "web"} and list(found.rules) == ["Egress"]
    named, dns, world = found.rules["Egress"]
    assert (named.peers[0].host, [port.text for port in named.ports]) == ("db.example.com", ["5432"])
    assert dns.peers[0].text == "any pod of namespace dns" and dns.names_seen == ("*",)
    assert [port.text for port in dns.ports] == ["53", "53 (UDP)"]
    assert all(peer.every_address for peer in world.peers) and len(world.peers) == 2
    assert named.location.line == 7


@pytest.mark.parametrize(
    ("spec", "gap"),
    [
        ("  egressDeny: [{}]\n  egress: []\n", "egressDeny of a CiliumNetworkPolicy is not read"),
        ("  egress: [{toServices: [{}]}]\n", "toServices of a CiliumNetworkPolicy is not read"),
        ("  endpointSelector: odd\n  egress: []\n", "a selector is not a mapping"),
    ],
)
def test_what_of_a_policy_of_cilium_is_not_read(spec, gap):
    assert [found.text for found in policy(spec, CILIUM).policies.gaps] == [gap]


# Flows


def flows(answers) -> set[tuple[str, str, int, str]]:
    """Who needs which port for what, without DNS."""
    found = load(rendered(answers)).network.flows
    return {(f.pod.manifest.name, f.direction, f.port, f.protocol) for f in found if f.port not in (53, 5353)}


def test_what_the_pods_of_standalone_need():
    assert flows(STANDALONE) >= {
        ("pgcat", "Ingress", 6432, "TCP"),
        ("pgcat", "Egress", 5432, "TCP"),
        ("permify", "Egress", 6432, "TCP"),
        ("permify", "Ingress", 3476, "TCP"),
        ("permify", "Ingress", 3478, "TCP"),
    }


def test_a_sidecar_needs_no_way_to_itself():
    assert not [flow for flow in flows(SIDECAR) if flow[2] == 6432 and flow[1] == "Egress"]


def test_permify_elsewhere_is_a_pod_of_the_stack():
    network = load(rendered(HELM)).network
    assert network.permify_elsewhere in network.stack_pods
    assert load(rendered(STANDALONE)).network.permify_elsewhere is None


# Monitoring


def test_targets_and_requests_of_prometheus():
    text = (
        "scrape_configs:\n  - static_configs:\n      - targets: [pgcat:9930, odd, 5]\n"
        "  - relabel_configs: [{target_label: __address__, replacement: probe:9115}]\n"
        "    params: {module: [read]}\n    static_configs:\n      - targets: [http://permify:3476]\n"
    )
    prometheus = load({**rendered(DOCKER), "monitoring/prometheus.yml": text}).network.prometheus
    assert (prometheus.targets[0].host, prometheus.targets[0].port) == ("pgcat", 9930)
    (request,) = prometheus.requests
    assert (request.host, request.port, request.module) == ("permify", 3476, "read")
    assert (request.exporter, request.place.line) == ("probe:9115", 7)


def test_what_of_prometheus_is_not_read():
    for text in ("scrape_configs: odd\n", "scrape_configs: [odd]\n", "scrape_configs: [\n"):
        prometheus = load({**rendered(DOCKER), "monitoring/prometheus.yml": text}).network.prometheus
        assert len(prometheus.gaps) == 1 and prometheus.gaps[0].location.line == 1, text


def test_the_port_of_an_endpoint_by_name_and_number():
    (monitor,) = of(
        "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}\nspec:\n"
        "  selector: {matchLabels: {app: web}}\n  podMetricsEndpoints:\n"
        "    - {port: http}\n    - {portNumber: 81}\n    - {port: other}\n"
    ).network.pod_monitors
    (pod,) = monitor.pods
    assert [endpoint.number_in(pod) for endpoint in monitor.endpoints] == [80, 81, None]
    assert [endpoint.location.line for endpoint in monitor.endpoints] == [7, 8, 9]


# Autoscalers and budgets


def test_what_an_autoscaler_scales():
    (target,) = of(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\nspec:\n"
        "  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n"
    ).scale_targets
    assert target.found and target.location.line == 5 and target.gaps == ()


# Anything at all


@pytest.mark.parametrize(
    "kind", ["Service", "NetworkPolicy", CILIUM, "PodMonitor", "HorizontalPodAutoscaler"]
)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_shape_stops_the_reading(kind, odd):
    keys = ("selector", "ports", "podSelector", "ingress", "egress", "policyTypes", "endpointSelector")
    keys += ("podMetricsEndpoints", "scaleTargetRef")
    wrapped = [
        odd,
        [{"from": odd, "to": odd, "ports": odd}],
        [{"ports": [odd]}, {"from": [odd], "to": [odd]}],
    ]
    wrapped += [[{"fromEndpoints": odd, "toPorts": odd, "toFQDNs": odd, "relabelings": odd}]]
    wrapped += [[{"toEntities": [odd], "toCIDRSet": [odd], "toPorts": [{"ports": [odd]}]}]]
    for value in wrapped:
        spec = {key: value for key in keys}
        reading = of(f"{{apiVersion: v1, kind: {kind}, metadata: {{name: a}}, spec: {_flow(spec)}}}\n")
        assert reading.sources["more.yaml"].parsed
        assert isinstance(gaps_of(reading), list) and reading.network.flows is not None
        assert not [one for one in run_checks(reading) if "itself failed" in one.message]


def _flow(value: object) -> str:
    """YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "null" if value is None else str(value).lower()


def test_a_broken_policy_says_nothing_of_the_others():
    files = edit(
        rendered(STANDALONE), "kubernetes/network-policies.yaml", r"^  ingress:$", "  ingress: 5\n  other:"
    )
    policies = load(files).policies
    assert len(policies.gaps) == 1 and len(policies.all) == len(load(rendered(STANDALONE)).policies.all)
