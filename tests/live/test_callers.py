"""Who may call Permify: a browser's pages may not, a caller with a key may, and keys change under load.

The two sections of the runbook are followed by their own commands; `kubectl` is a stand-in that keeps the
Secret, and the pods are replaced as a controller would.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.load import Load
from live.repeats import asked_for, drawn
from live.rollout_under_load import Rollout, Seen, roll
from live.stack import EXTERNAL, Stack, require_programs
from live.support import KEY, LOOPBACK, clean_environment, free_port, listens, program, running
from pgcat_stack.permify.callers import KEYS_VARIABLE
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import environment_file, make_secrets, read_keys
from rendering import render
from runbook import blocks

pytestmark = pytest.mark.timeout(600)

STRANGER, OURS = "https://evil.example", "https://app.example.com"


class Permify:
    """One with the server and authn of a rendered docker deployment, and everything in memory."""

    def __init__(self, deploy: Path) -> None:
        self.deploy, self.port = deploy, free_port()
        keys = deploy / "secrets/permify.env"
        self.key = read_keys(keys)[0] if keys.exists() else ""

    @contextlib.contextmanager
    def up(self, folder: Path) -> Iterator[Permify]:
        config: dict[str, Any] = yaml.safe_load((self.deploy / "permify/permify.yaml").read_text())
        config["database"] = {"engine": "memory"}
        config["server"]["http"]["port"], config["server"]["grpc"]["port"] = str(self.port), str(free_port())
        (folder / "permify.yaml").write_text(yaml.safe_dump(config))
        service = yaml.safe_load((self.deploy / "compose.yaml").read_text())["services"]["permify"]
        environment = clean_environment(HOME=str(folder), PERMIFY_DISTRIBUTED_PORT=str(free_port()))
        for file in service.get("env_file", []):
            environment |= environment_file(self.deploy / file)
        command = [program("permify"), "serve", "--config", str(folder / "permify.yaml")]
        with running(command, folder / "log", environment) as process:
            process.wait_until(lambda: listens(self.port))
            yield self

    def ask(
        self, method: str = "POST", path: str = "/v1/tenants/list", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, and body."""
        with contextlib.closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, "{}" if method == "POST" else None, named)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    def allows(self, origin: str) -> bool:
        """Whether a browser would let a page of this origin send a key, and read what comes back."""
        _, before, _ = self.ask(
            "OPTIONS",
            Origin=origin,
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization,content-type",
        )
        _, after, _ = self.ask(Origin=origin, Authorization=f"Bearer {self.key}")
        name = "access-control-allow-origin"
        assert (name in before) == (name in after)
        return before.get(name) in (origin, "*")


@pytest.mark.parametrize(
    ("answers", "asks", "allowed"),
    [
        ({}, True, set()),
        ({"cors_allowed_origins": f"{OURS}, http://localhost:3000"}, True, {OURS}),
        ({"cors_allowed_origins": "*"}, True, {OURS, STRANGER}),
        ({"authn": "none"}, False, {OURS, STRANGER}),
        ({"authn": "none", "cors_allowed_origins": OURS}, False, {OURS}),
    ],
)
def test_a_page_of_another_origin(
    answers: dict[str, Any], asks: bool, allowed: set[str], tmp_path: Path
) -> None:
    deploy = render(tmp_path / "deploy", answers)
    make_secrets(Reading.load(deploy))
    with Permify(deploy).up(tmp_path) as permify:
        assert permify.ask("GET", "/healthz")[0] == 200, "probes need no key"
        assert {origin for origin in (OURS, STRANGER, "null") if permify.allows(origin)} - {"null"} == allowed
        for header in ({}, {"Authorization": "Bearer another"}, {"Authorization": "Bearer "}):
            status, _, text = permify.ask(**header, Origin=STRANGER)
            assert (status != 200) == asks
            assert not asks or re.search("MISSING_BEARER_TOKEN|INVALID_KEY", text)
        assert permify.ask(Authorization=f"Bearer {permify.key}")[0] == 200


# The runbook, under load

KUBECTL = """\
#!{python}
import base64, pathlib, sys
folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (folder / "arguments").open("a") as log:
    print(*words, file=log)
if words[2:4] == ["get", "secret"]:
    print(base64.b64encode((folder / "keys").read_bytes()).decode(), end="")
elif words[2:4] == ["create", "secret"]:
    assert "--from-file=keys=/dev/stdin" in words
    if "--dry-run=client" in words:
        print(sys.stdin.read(), end="")
    else:
        (folder / "keys").write_text(sys.stdin.read())
elif words == ["replace", "-f", "-"]:
    (folder / "keys").write_text(sys.stdin.read())
else:
    assert words[2] == "rollout", words
"""
FIRST = "old-key-of-callers-0123456789"


def follow(stack: Stack, title: str, part: int) -> str:
    """Run a block of the runbook; the keys that the Secret has then. No key is an argument on the way."""
    folder = stack.folder / "kubectl"
    folder.mkdir(exist_ok=True)
    kubectl = folder / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o755)
    (folder / "keys").write_text(stack.keys)
    command = blocks(stack.rendered / "README.md", title)[part]
    environment = clean_environment()
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    subprocess.run(["bash", "-ec", command], env=environment, check=True, timeout=60)
    keys = (folder / "keys").read_text()
    arguments = (folder / "arguments").read_text()
    assert not any(key in arguments for key in (*keys.split(","), *stack.keys.split(",")))
    return keys


def add_a_key(stack: Stack) -> None:
    stack.keys = follow(stack, "Rotate the keys", 0)
    old, new = stack.keys.split(",")
    assert old == KEY and re.fullmatch("[0-9a-f]{32}", new)


def remove_the_old_one(stack: Stack, load: Load) -> None:
    load.key = stack.keys.split(",")[1]  # callers have moved
    stack.keys = follow(stack, "Rotate the keys", 1)
    assert stack.keys == load.key


STANDALONE = {"topology": "standalone", **EXTERNAL, "drain_seconds": 20}
SIDECAR = {**STANDALONE, "topology": "sidecar"}
DIRECT = {**STANDALONE, "pooling": "direct", "permify_max_connections": 4}
ROTATION = Rollout(STANDALONE, rolled="permify", before=add_a_key, again=remove_the_old_one, fill=False)
TURNED_ON = Rollout(
    {**STANDALONE, "authn": "none"}, rolled="permify", change={"authn": "preshared"}, fill=False
)
ROLLOUTS = {
    "keys rotated, standalone": ROTATION,
    "keys rotated, sidecar": replace(ROTATION, answers=SIDECAR),
    "keys rotated, direct": replace(ROTATION, answers=DIRECT),
    "authn turned on, standalone": TURNED_ON,
    "authn turned on, sidecar": replace(TURNED_ON, answers={**SIDECAR, "authn": "none"}),
}
TOO_EARLY = {
    "the old key removed before callers moved": replace(
        ROTATION, before=lambda stack: setattr(stack, "keys", "new-key-of-callers-0123456789"), again=None
    ),
    "turned on before callers send a key": replace(TURNED_ON, key=""),
}


REPEATED = {**ROLLOUTS, **TOO_EARLY}.keys() - {
    "keys rotated, standalone",
    "authn turned on, sidecar",
    "turned on before callers send a key",
}
"""What runs with --every-combination: the rest has both procedures, and what an order that is wrong costs."""


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config) -> Iterator[Callable[[str], Seen]]:
    """All that are asked for, under way."""
    require_programs()
    program("haproxy")
    repeated = asked_for(pytestconfig, REPEATED)
    every = {name: rollout for name, rollout in {**ROLLOUTS, **TOO_EARLY}.items() if name not in repeated}
    with ThreadPoolExecutor(4) as threads:
        futures: dict[str, Future[Seen]] = {
            name: threads.submit(roll, rollout) for name, rollout in every.items()
        }
        yield lambda name: futures[name].result()


@pytest.mark.parametrize("name", drawn(ROLLOUTS, REPEATED))
def test_no_request_fails_while_keys_change(outcomes: Callable[[str], Seen], name: str) -> None:
    seen = outcomes(name)
    assert len(seen.load.requests("check")) > 300 and len(seen.load.requests("write")) > 50
    assert list(seen.load.errors()) == []
    assert seen.lost == set() and seen.kept == 0


@pytest.mark.parametrize("name", drawn(TOO_EARLY, REPEATED))
def test_out_of_order_requests_fail(outcomes: Callable[[str], Seen], name: str) -> None:
    errors = list(outcomes(name).load.errors())
    assert errors and all("INVALID_KEY" in text or "MISSING_BEARER" in text for text in errors)


def test_one_key_is_never_removed(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", STANDALONE)

    class Alone:
        rendered, folder, keys = deploy, tmp_path, FIRST

    with pytest.raises(subprocess.CalledProcessError):
        follow(Alone, "Rotate the keys", 1)  # type: ignore[arg-type]
    assert (tmp_path / "kubectl/keys").read_text() == FIRST
    Alone.keys = ""  # kubectl said nothing
    with pytest.raises(subprocess.CalledProcessError):
        follow(Alone, "Rotate the keys", 0)  # type: ignore[arg-type]


def test_the_first_key_by_the_commands_of_the_page(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", STANDALONE, authn="none")

    class Alone:
        rendered, folder, keys = deploy, tmp_path, "unset-unset-unset-unset"

    assert re.fullmatch("[0-9a-f]{32}", follow(Alone, "Ask callers for a key", 0))  # type: ignore[arg-type]


def test_docker_keys_by_the_commands_of_the_page(tmp_path: Path) -> None:
    """What makes, adds and removes a key in secrets/permify.env, without the recreation."""
    deploy = render(tmp_path / "deploy", authn="none")
    file = deploy / "secrets/permify.env"

    def follow_here(title: str, part: int) -> list[str]:
        command = blocks(deploy / "README.md", title)[part].partition(" &&\ndocker compose")[0]
        subprocess.run(["sh", "-ec", command], cwd=deploy, check=True, timeout=60)
        assert file.stat().st_mode & 0o777 == 0o444 and file.parent.stat().st_mode & 0o777 == 0o700
        assert [each.name for each in file.parent.glob("permify*")] == ["permify.env"]
        return read_keys(file)

    (first,) = follow_here("Ask callers for a key", 0)
    before = (deploy / "README.md").read_text()
    for name in ("README.md", "compose.yaml"):
        (deploy / name).write_text((render(tmp_path / f"asking-{name}") / name).read_text())
    (old, new) = follow_here("Rotate the keys", 0)
    assert old == first != new
    assert follow_here("Rotate the keys", 1) == [new]
    with pytest.raises(subprocess.CalledProcessError):
        follow_here("Rotate the keys", 1)
    assert read_keys(file) == [new], "the last one stays"

    file.chmod(0o644)
    for content in (f"# ours\n{KEYS_VARIABLE}={FIRST},{new}\n", f"{KEYS_VARIABLE}='{FIRST},{new}'\n"):
        file.write_text(content)
        for part in (0, 1):
            with pytest.raises(subprocess.CalledProcessError):
                follow_here("Rotate the keys", part)
            assert file.read_text() == content
    (deploy / "README.md").write_text(before)
    with pytest.raises(subprocess.CalledProcessError):
        follow_here("Ask callers for a key", 0)
    assert file.read_text() == content, "a key that is there is kept"
