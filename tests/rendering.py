"""Renders deployments in this process, fast enough for hundreds of them.

For each copy Copier reads copier.yml, compiles every template and every question anew, and clones a template
that is a git repository. Here one configuration, one compiled environment and one plain copy of the template
serve all renders; what is rendered is the same. `tests/render/test_copier.py` renders by the real command.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import itertools
import os
import pickle
import random
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import copier
import copier._template
import jinja2
from copier._main import Worker
from copier.errors import UserMessageError
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment

from compiled.copier_cache import spare_copier

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE_PARTS = ("copier.yml", "questions", "template", "hooks", "src")

# A first deployment on Kubernetes must name its primary; everything else has a default.
KUBERNETES = {"primary_host": "db-primary.example.com"}


class Refused(Exception):
    """Copier ended with one line instead of a deployment."""


@functools.cache
def template() -> Path:
    """A copy of the template outside git, made once."""
    folder = Path(tempfile.mkdtemp(prefix="pgcat-stack-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for part in TEMPLATE_PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


@functools.cache
def environment() -> SandboxedEnvironment:
    """Copier's own environment for the template, with compiled strings kept."""
    spare_copier()
    with Worker(src_path=str(template()), dst_path=Path(tempfile.gettempdir()) / "unused") as worker:
        env = Worker.jinja_env.func(worker)  # type: ignore[attr-defined]
    env.cache = dict[Any, Any]()
    env.auto_reload = False
    compiled: dict[str, Template] = {}
    compile_string = env.from_string

    def from_string(source: str) -> Template:
        if source not in compiled:
            compiled[source] = compile_string(source)
        return compiled[source]

    env.from_string = from_string
    return env


@functools.cache
def _configuration(path: Path) -> bytes:
    return pickle.dumps(_load_configuration(path))


_load_configuration = copier._template.load_template_config
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _compiled_once() -> Iterator[None]:
    ours, own = environment(), Worker.jinja_env
    Worker.jinja_env = ours  # type: ignore[assignment]
    copier._template.load_template_config = lambda path, quiet=False: pickle.loads(_configuration(path))
    try:
        yield
    finally:
        Worker.jinja_env = own
        copier._template.load_template_config = _load_configuration


def render(destination: Path, answers: Mapping[str, Any] | None = None, /, **more: Any) -> Path:
    """Render a deployment with these answers and defaults for the others, without hooks.

    It is kept under `.pytest_cache`, and not rendered again for the same answers until the template changes.
    Raises `Refused` with Copier's line when the gate refuses, after checking that nothing was written.
    """
    given = pickle.dumps(sorted({**(answers or {}), **more}.items()))
    kept = _kept_folder() / hashlib.sha256(given).hexdigest()
    if destination.exists():
        return _render(destination, answers, **more)
    try:
        files = pickle.loads(zlib.decompress(kept.read_bytes()))
    except OSError:
        _render(destination, answers, **more)
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_bytes(zlib.compress(pickle.dumps(_read(destination)), level=1))
        draft.replace(kept)
        return destination
    for name, (mode, content) in files.items():
        path = destination / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(_TEMPLATE, os.fsencode(template())))
        path.chmod(mode)
    return destination


_TEMPLATE = b"\0template\0"
"""In a kept answers file: where the template is, which differs from process to process."""
_KEPT_TEMPLATES = 3


@functools.cache
def _kept_folder() -> Path:
    """Where deployments of the template as it is now are kept; those of earlier ones make room."""
    digest = hashlib.sha256(f"{copier.__version__} {jinja2.__version__}".encode())
    for part in ("copier.yml", "questions", "template"):
        for path in sorted([template() / part, *(template() / part).rglob("*")]):
            if path.is_file():
                digest.update(f"{path.relative_to(template())} {path.stat().st_mode} ".encode())
                digest.update(path.read_bytes())
    renders = REPOSITORY / ".pytest_cache" / "renders"
    folder = renders / digest.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for old in sorted(renders.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT_TEMPLATES]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _read(deployment: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(deployment).as_posix(): (
            path.stat().st_mode,
            path.read_bytes().replace(os.fsencode(template()), _TEMPLATE),
        )
        for path in deployment.rglob("*")
        if path.is_file()
    }


def _render(destination: Path, answers: Mapping[str, Any] | None, **more: Any) -> Path:
    try:
        with _one_at_a_time, _compiled_once():
            copier.run_copy(
                str(template()),
                destination,
                data={**(answers or {}), **more},
                defaults=True,
                quiet=True,
                skip_tasks=True,
            )
    except UserMessageError as error:
        assert not destination.exists(), f"refused, yet {destination} was written"
        raise Refused(str(error)) from None
    return destination


def render_stored(destination: Path, answers: str) -> Path:
    """Render over a deployment whose answers file has this text, as an update does.

    Raises `Refused` as `render` does, after checking that nothing was written beside the answers file.
    """
    destination.mkdir()
    file = destination / ".copier-answers.yml"
    file.write_text(answers)
    try:
        with _one_at_a_time, _compiled_once():
            copier.run_copy(
                str(template()), destination, defaults=True, quiet=True, overwrite=True, skip_tasks=True
            )
    except UserMessageError as error:
        assert list(destination.iterdir()) == [file] and file.read_text() == answers, f"refused: {error}"
        raise Refused(str(error)) from None
    return destination


def combinations(every: bool = False) -> list[dict[str, Any]]:
    """Answers for every way of rendering that design.md allows.

    What decides pools, instances and drain is combined in full. Monitoring, secrets and network policies each
    decide over files of their own, so they are drawn, evenly, unless `every` combination is asked for.
    """
    draw = random.Random(0)
    found: list[dict[str, Any]] = []
    for base in _bases():
        full, drawn = _choices(base)
        for values in itertools.product(*full.values()):
            answers = {**base, **dict(zip(full, values, strict=True))}
            others = list(itertools.product(*drawn.values()))
            for other in others if every else [draw.choice(others)]:
                found.append({**answers, **dict(zip(drawn, other, strict=True))})
    return found


def _bases() -> Iterator[dict[str, Any]]:
    external = [
        {"database": "external", "primary_host": "primary", "replica_hosts": replicas}
        for replicas in ("", "replica-1", "replica-1,replica-2:5433")
    ]
    for topology, pooling in itertools.product(("docker", "standalone", "sidecar"), ("pgcat", "direct")):
        if (topology, pooling) != ("sidecar", "direct"):
            databases = [{"database": "bundled"}, *external] if topology == "docker" else external
            for database in databases:
                # Connections enough for three session-mode processes with watch behind two PgCat.
                yield {
                    "topology": topology,
                    "pooling": pooling,
                    **database,
                    "postgres_max_connections": 200,
                }


def _choices(base: Mapping[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]:
    docker, pgcat = base["topology"] == "docker", base["pooling"] == "pgcat"
    full: dict[str, tuple[Any, ...]] = {"watch": (False, True)}
    drawn: dict[str, tuple[Any, ...]] = {}
    if pgcat:
        full["pool_mode"] = ("transaction", "session")
        drawn["monitoring"] = ("none", "prometheus")
        if base.get("replica_hosts", "bundled"):
            full["primary_reads"] = (True, False)
    if base["database"] == "external":
        full["database_tls"] = ("disable", "require") if pgcat else ("disable", "require", "verify-full")
    if docker:
        full["permify_replicas"] = (1, 3)
    else:
        full["permify_max_replicas"] = (0, 3)
        drawn |= {"secrets": ("existing", "external-secrets"), "network_policies": (True, False)}
        if pgcat:
            drawn["monitoring"] = ("none", "prometheus", "prometheus-operator")
    if base["topology"] == "standalone":
        full["permify_install"] = ("manifests", "helm", "none")
    if base["topology"] == "sidecar":
        drawn["permify_install"] = ("manifests", "none")
    drawn["otlp_endpoint"] = ("", "collector:4317" if docker else "collector.monitoring:4317")
    return full, drawn
