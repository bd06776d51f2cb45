"""PS612 to PS614: what asks Permify for a read and a write reaches it, knows the request, and has its key."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks.permify_authn import permifys
from pgcat_stack.files.quantities import whole_text
from pgcat_stack.findings import Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.monitoring import BLACKBOX
from pgcat_stack.reading.network import BLACKBOX_PORT
from pgcat_stack.reading.reading import Reading

_KEYS = "PERMIFY_AUTHN_PRESHARED_KEYS"


@check(
    code="PS612",
    name="probe-target",
    severity="error",
    why="A probe that asks the wrong host or port pages all night, or Prometheus reaches no probe and every"
    " alert on requests is silent.",
    fix="Name Permify's HTTP port as the target, and the Service of the blackbox_exporter with its port as"
    " `__address__`.",
)
def probe_target(reading: Reading) -> Iterator[Problem]:
    """Requests to another port than Permify's, to no service that runs it, or by an exporter not there."""
    ports = reading.network.permify_ports
    port = ports.apis.get("http") if ports else None
    names = {container.name for container in reading.running("permify") if container.pod is None}
    for request in reading.network.requests:
        if request.host and names and request.host not in names:
            text = f"the probe asks {show(request.host)}, which does not run Permify"
            yield Problem(request.place, text, f"use {', '.join(sorted(names))}")
        elif port is not None and request.port not in (None, port):
            text = f"the probe asks port {request.port}, and Permify's HTTP API is on {port}"
            yield Problem(request.place, text, f"use {port}")
        found = reading.network.makers(request)
        host, _, number = request.exporter.rpartition(":")
        if found == [] and (reading.services or reading.kubernetes_services):
            text = f"{show(host)} is no service of this deployment, and is to make the probe's requests"
            yield Problem(request.place, text, "name the service of the blackbox_exporter")
        elif found and whole_text(number) not in _served(reading, host, found):
            text = f"port {show(number)} of {show(host)} is asked, and no blackbox_exporter answers there"
            yield Problem(request.place, text, f"use {BLACKBOX_PORT}")


def _served(reading: Reading, host: str, found: list[Container]) -> set[int]:
    """The ports at which a blackbox_exporter is reached by this name."""
    if any(container.pod is None for container in found):
        return {BLACKBOX_PORT}
    pods = [container.pod for container in found if container.pod]
    return {
        port.outer
        for service in reading.kubernetes_services
        if host in service.host_names
        for port in service.ports
        if port.outer is not None
        and any(pod.port_number(port.inner or port.outer) == BLACKBOX_PORT for pod in pods)
    }


@check(
    code="PS613",
    name="probe-module",
    severity="error",
    why="A blackbox_exporter answers 400 to a request for a module that it does not have: there is no probe.",
    fix="Name a module of monitoring/blackbox.yml.",
)
def probe_module(reading: Reading) -> Iterator[Problem]:
    """Requests by a module that blackbox.yml does not have."""
    modules = reading.probe_modules
    for request in reading.network.requests if modules is not None else ():
        if modules is not None and request.module not in modules:
            text = f"{BLACKBOX} has no module {show(request.module)}"
            yield Problem(request.place, text, f"it has {', '.join(modules) or 'none'}")


@check(
    code="PS614",
    name="probe-key",
    severity="error",
    why="Permify refuses a probe without its key, so that alerts page for an outage that callers do not see.",
    fix="Give the blackbox_exporter the keys as Permify has them, from the same Secret or file, and"
    " `authorization` with `credentials_file` in its module.",
)
def probe_key(reading: Reading) -> Iterator[Problem]:
    """Modules that send no key to a Permify which asks for one, and probes that get other keys."""
    asking = [each for each in permifys(reading) if each.authn.enabled and each.authn.method == "preshared"]
    modules = reading.probe_modules
    if not asking or modules is None:
        return
    used = reading.network.requests
    for name in sorted({request.module for request in used} & modules.keys()):
        module = modules[name]
        if not module.empty and not module.sends_key:
            yield Problem(module.location, f"the module {show(name)} sends no key", "add authorization")
    theirs = {_keys_from(each.settings.container) for each in asking if each.settings.container} - {""}
    asked_by = {
        container.text: container for request in used for container in reading.network.makers(request) or []
    }
    for container in asked_by.values():
        ours = _keys_from(container)
        if theirs and ours not in theirs:
            text = f"{container.text} gets {'other keys' if ours else 'no keys'} of Permify's callers"
            yield Problem(
                container.at("env_file" if container.pod is None else "env"), text, f"use {min(theirs)}"
            )


def _keys_from(container: Container) -> str:
    """Where a container gets the keys from; empty where it gets none."""
    variable = container.variable(_KEYS)
    if variable is not None and variable.secret is not None:
        return "key {1} of the Secret {0}".format(*variable.secret)
    files = [file.path for file in container.env_files if file.has_keys]
    return files[0] if files else "a variable" if variable is not None else ""
