"""A live deployment as the doctor is shown it: its files, with the addresses that its parts really have."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live.stack import Stack
from live.support import LOOPBACK, joined, readdressed
from pgcat_stack.doctor.routes import Options, ReachMapping, parse_mapping
from pgcat_stack.doctor.session import Diagnosis, examine
from pgcat_stack.doctor.verdict import verdict
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading

MIGRATIONS = ("kubernetes/migration-job.yaml", "compose.yaml")
"""Where the address of the primary stands for the migration."""


def shown(findings: list[Finding]) -> str:
    """Findings for the message of an assertion."""
    return "\n".join(f"{found.code} {found.message} ({found.fix})" for found in findings)


@dataclass
class Patient:
    stack: Stack
    root: Path
    """A copy of the deployment, to edit as well."""
    environment: dict[str, str] = field(default_factory=dict)
    timeout_seconds: float = 2.0

    def __post_init__(self) -> None:
        shutil.copytree(self.stack.rendered, self.root)
        moved = dict(self.stack.moved.values())
        for name in ("pgcat/pgcat.toml", "permify/permify.yaml", *MIGRATIONS):
            file = self.root / name
            if file.exists():
                text = file.read_text()
                named = {there: here for there, here in moved.items() if there[0] in text}
                file.write_text(readdressed(text, named) if named else text)
        budget = self.root / "budget.yaml"
        text = budget.read_text()
        for (host, port), (here, number) in moved.items():
            there = rf'host: "{re.escape(host)}"\n( *)port: {port}\n'
            text, count = re.subn(there, rf'host: "{here}"\n\g<1>port: {number}\n', text)
            assert count == 1
        budget.write_text(text)
        admin = self.stack.secrets / "pgcat_admin_password"
        self.environment = {"DATABASE_PASSWORD": self.stack.password, "PGCAT_ADMIN_PASSWORD_FILE": str(admin)}
        self.environment["PERMIFY_TOKEN"] = self.stack.keys
        if self.stack.docker:
            self.environment = {}  # the deployment has its own secrets

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.root / name
        text = file.read_text()
        assert old in text, f"{old!r} is not in {name}"
        file.write_text(text.replace(old, new, 1))

    def swap(self) -> None:
        """Primary and replica, in every file: as before a failover that the files do not know."""
        primary, replica = (joined(self.stack.moved[role][1]) for role in ("primary", "replica"))
        (p_host, p_port), (r_host, r_port) = (self.stack.moved[role][1] for role in ("primary", "replica"))
        pairs = [
            (primary, replica),
            (f'"{p_host}", {p_port}', f'"{r_host}", {r_port}'),
            (f'host: "{p_host}"\n    port: {p_port}\n', f'host: "{r_host}"\n    port: {r_port}\n'),
        ]
        for name in ("pgcat/pgcat.toml", "permify/permify.yaml", "budget.yaml", *MIGRATIONS):
            file = self.root / name
            if file.exists():
                text = file.read_text()
                for one, other in pairs:
                    text = text.replace(one, "\0").replace(other, one).replace("\0", other)
                file.write_text(text)

    @property
    def reaches(self) -> list[str]:
        """The `--reach` of every part of the stack."""
        found = [f"{joined(here)}={joined(here)}" for _, here in self.stack.moved.values()]
        for pgcat in self.stack.pgcats:
            here = self.stack.pgcat_host
            found += [f"pgcat={joined((here, pgcat.port))}", f"pgcat:9930={joined((here, pgcat.exporter))}"]
        return found + [f"permify={LOOPBACK}:{permify.port}" for permify in self.stack.permifys]

    def options(self, reaches: Iterable[str] | None = None, **more: Any) -> Options:
        mappings: list[ReachMapping] = [
            parse_mapping(text) for text in (self.reaches if reaches is None else reaches)
        ]
        how = {"docker": False, "timeout_seconds": self.timeout_seconds, **more}
        return Options(mappings=tuple(mappings), **how)

    def examined(self, reaches: Iterable[str] | None = None, **more: Any) -> Diagnosis:
        return examine(Reading.load(self.root), self.options(reaches, **more), self.environment)

    def findings(self, reaches: Iterable[str] | None = None, **more: Any) -> list[Finding]:
        return list(verdict(self.examined(reaches, **more).case).findings)
