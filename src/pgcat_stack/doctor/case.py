"""Everything that was answered, typed: what checks judge by beside the facts of the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pgcat_stack.doctor.credentials import Credentials
from pgcat_stack.doctor.expected import Facts, Server
from pgcat_stack.doctor.permify import PermifyAnswer
from pgcat_stack.doctor.pgcat import PgcatAnswer
from pgcat_stack.doctor.platforms import Process
from pgcat_stack.doctor.postgres import Lag, ServerFacts
from pgcat_stack.doctor.side_by_side import Broken, Trouble
from pgcat_stack.doctor.write_check import WriteCheck
from pgcat_stack.endpoints import Address

_REFUSALS = ("login", "limit", "database", "refused", "untrusted", "md5")


UNPROVEN = ("untrusted", "md5", "no-ca")
"""The kinds of trouble where who answers got no login, because it has not proven who it is."""
ELSEWHERE = (*UNPROVEN, "unasked", "unmet", "broken")
"""The kinds of trouble that say nothing of who was asked, or that another check has."""


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """A PostgreSQL server. Both may be there: refused here, and yet reached through PgCat."""

    facts: ServerFacts | None = None
    trouble: Trouble | None = None
    """Of asking it directly."""
    pool: str = ""
    """The pool of PgCat that it was asked through; empty where it was asked directly."""
    lag: Lag | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the living parts said."""

    servers: Mapping[Address, ServerAnswer] = field(default_factory=dict)
    pgcats: tuple[PgcatAnswer, ...] = ()
    permifys: tuple[PermifyAnswer, ...] = ()
    processes: tuple[Process, ...] | None = None
    """What docker or Kubernetes runs; None where neither was asked."""
    write_check: WriteCheck | None = None
    hint: str = ""
    """What to try where something was not reached."""
    broken: tuple[Broken, ...] = ()
    """Questions that ended in an error of the doctor's own."""


@dataclass(frozen=True, slots=True)
class Case:
    """A deployment by its files, and what its living parts answered."""

    facts: Facts
    answers: Answers
    credentials: Credentials

    @property
    def servers(self) -> Iterator[tuple[Server, ServerAnswer]]:
        """Each server with its answer."""
        for server in self.facts.servers:
            yield server, self.answers.servers.get(server.address, ServerAnswer())

    @property
    def told(self) -> Iterator[tuple[Server, ServerFacts]]:
        """Each server that said something."""
        for server, answer in self.servers:
            if answer.facts is not None:
                yield server, answer.facts

    @property
    def primary(self) -> ServerFacts | None:
        """What the server that should be the primary says."""
        return next((facts for server, facts in self.told if server.role == "primary"), None)

    def address_of(self, pool: str, facts: ServerFacts) -> str:
        """The server of a pool that said something, as the files name it; else as it names itself."""
        members = [member.address for member in self.facts.topology.pools[pool].servers]
        if len(set(members)) == 1:
            return str(members[0])
        roles = {server.address: server.role for server in self.facts.servers}
        same = [a for a in dict.fromkeys(members) if (roles.get(a) == "primary") is not facts.in_recovery]
        return str(same[0]) if len(same) == 1 else f"{facts.address}:{facts.port}"

    def limited(self, server: Server) -> bool:
        """Whether the server refuses connections because it has none left."""
        trouble = self.answers.servers.get(server.address, ServerAnswer()).trouble
        return trouble is not None and trouble.kind == "limit"

    @property
    def anybody(self) -> bool:
        """Whether anybody answered at all, be it by a refusal."""
        troubles = [answer.trouble for _, answer in self.servers]
        troubles += [answer.trouble for answer in self.answers.pgcats]
        return (
            any(True for _ in self.told)
            or any(answer.facts or isinstance(answer.exporter, dict) for answer in self.answers.pgcats)
            or any(answer.place is not None for answer in self.answers.permifys)
            or any(trouble is not None and trouble.kind in _REFUSALS for trouble in troubles)
        )
