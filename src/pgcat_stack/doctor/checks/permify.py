"""PD4xx: the running Permify processes, and what a write and a check through the stack gave."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.doctor.case import ELSEWHERE, Case
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.pgcat import known_cause
from pgcat_stack.doctor.side_by_side import Trouble
from pgcat_stack.findings import Problem

STALE_SECONDS = 1.0


@check(
    code="PD401",
    name="permify-not-serving",
    severity="error",
    why="Permify answers and says itself that it does not serve.",
    fix="Its log says why.",
)
def permify_not_serving(case: Case) -> Iterator[Problem]:
    """Permify processes whose health check is not well."""
    for permify in case.answers.permifys:
        trouble = permify.trouble
        if permify.place is not None and trouble is not None and trouble.kind not in ELSEWHERE:
            message = f"Permify {permify.name} does not serve: {trouble.text}"
            yield Problem(case.facts.permify_at("server"), message, "see its log")


@check(
    code="PD402",
    name="permify-has-another-database",
    severity="error",
    why="Permify's tenants are not those of this database. With a `database` section that it does not see it"
    " keeps everything in memory, looks healthy, and forgets all at its next start.",
    fix="Look at what it runs with: the mounted permify.yaml, `database.engine: postgres`, and"
    " PERMIFY_DATABASE_… variables, which win over the file.",
)
def permify_has_another_database(case: Case) -> Iterator[Problem]:
    """Permify processes that know none of the database's tenants, at their times."""
    stored = frozenset().union(*(facts.tenants for _, facts in case.told if facts.tenants))
    for permify in case.answers.permifys:
        if not stored or not isinstance(permify.tenants, frozenset) or permify.tenants & stored:
            continue
        where = (
            "keeps everything in memory or in another database"
            if permify.tenants
            else "keeps everything in memory"
        )
        message = f"Permify {permify.name} knows no tenant of this database: it {where}"
        fix = "look at its mounted permify.yaml and PERMIFY_DATABASE_… variables, then restart it"
        yield Problem(case.facts.permify_at("database", "engine"), message, fix)


@check(
    code="PD403",
    name="permify-query-fails",
    severity="error",
    why="Permify's health check says SERVING whatever its database does. A plain read of its tenants came"
    " back with an error, as requests do.",
    fix="If PgCat or PostgreSQL are found wrong as well, fix these first: the message names the finding. If"
    " not, its log says more: `dial error` is a PgCat that is gone, `AllServersDown` a pool without a"
    " server.",
)
def permify_query_fails(case: Case) -> Iterator[Problem]:
    """Permify processes that cannot read their tenants."""
    for permify in case.answers.permifys:
        if isinstance(permify.tenants, Trouble) and permify.tenants.kind not in ("login", *ELSEWHERE):
            message = (
                f"Permify {permify.name} serves, and a read of its tenants fails: {permify.tenants.text}"
            )
            fix = _reads_fail(case) or "see its log, and PgCat's"
            yield Problem(case.facts.permify_at("database", "reader", "uri"), message, fix)


def _reads_fail(case: Case) -> str:
    """What another finding says about the way of Permify's reads; empty where none does."""
    sides = case.facts.permify.sides if case.facts.permify else ()
    for _, uri in [(side, uri) for side, uri in sides if side == "reader"]:
        pool = case.facts.topology.pools.get(uri.database)
        addresses = {server.address for server in pool.servers} if pool else set(uri.servers)
        if found := known_cause(case, addresses, [pool.name] if pool else []):
            return found
    return ""


@check(
    code="PD404",
    name="write-check-failed",
    severity="error",
    why="A write or a check through the whole stack came back with an error (only with `--write-check`).",
    fix="The step tells the side: creating and writing go to the primary, checking to the readers.",
)
def write_check_failed(case: Case) -> Iterator[Problem]:
    """The step of the write check that failed."""
    result = case.answers.write_check
    if result is not None and result.failed is not None:
        step, trouble = result.failed
        side = "reader" if step.startswith("check") else "writer"
        place = case.facts.permify_at("database", side, "uri")
        fix = "see Permify's log, and PgCat's"
        if trouble.kind == "mute":
            fix = "something holds or slows it: sessions ask_primary, in README.md, while it runs"
        elif side == "writer" and case.facts.fronted:
            fix += "; `read-only transaction` there: if the database takes writes again, restart PgCat"
        yield Problem(place, f"write check: “{step}” failed: {trouble.text}", fix)


@check(
    code="PD405",
    name="stale-read",
    severity="warning",
    why="A check went on denying what had been written before (only with `--write-check`). Under a second is"
    " usual with replicas and only noted.",
    fix="A replica is behind, see PD215 and PD216. Where a request must see what was just written, send the"
    " snap token of the write with it.",
)
def stale_read(case: Case) -> Iterator[Problem]:
    """Checks that were answered by old data for longer than a second."""
    result = case.answers.write_check
    for stale in result.stale if result is not None else ():
        if stale.seconds < STALE_SECONDS:
            continue
        after = f"for {stale.seconds:.1f} s" if stale.ended else f"and still did after {stale.seconds:.1f} s"
        message = f"write check: {stale.process} answered by old data {after}"
        if not stale.ended:
            message += f" ({stale.said})"
        yield Problem(case.facts.permify_at("database", "reader", "uri"), message, "a replica is behind")


@check(
    code="PD406",
    name="write-check-leftover",
    severity="warning",
    why="The tenant of the write check could not be removed.",
    fix="Delete it by Permify's API: `curl -X DELETE http://HOST:3476/v1/tenants/NAME`. Where it asks for a"
    " key, write `send_key` of the deployment's README instead of `curl`.",
)
def write_check_leftover(case: Case) -> Iterator[Problem]:
    """A tenant that is still there."""
    result = case.answers.write_check
    if result is not None and result.leftover:
        message = f"write check: the tenant {result.tenant} could not be removed: {result.leftover}"
        program = "send_key" if case.facts.asks_for_a_key else "curl"
        fix = f"{program} -X DELETE http://HOST:{case.facts.permify_port}/v1/tenants/{result.tenant}"
        yield Problem(case.facts.permify_at("database", "writer", "uri"), message, fix)


@check(
    code="PD407",
    name="permify-refuses-the-key",
    severity="error",
    why="Permify asks its callers for a key, and does not take the one that the doctor has, or the doctor has"
    " none. Callers with the same key fail in the same way.",
    fix="Permify reads its keys when it starts. After a rotation, run `kubectl rollout restart`. In Compose,"
    " run `docker compose up --wait --no-deps permify`: `docker compose restart` keeps the old keys. If"
    " the doctor cannot read the keys, give it one in PERMIFY_TOKEN, or name a file with it in"
    " PERMIFY_TOKEN_FILE.",
)
def permify_refuses_the_key(case: Case) -> Iterator[Problem]:
    """Permify processes that ask for a key and do not take the doctor's."""
    credentials = case.credentials
    for permify in case.answers.permifys:
        if not permify.refuses_key:
            continue
        if credentials.token:
            message = f"Permify {permify.name} refuses the key: {permify.tenants.text}"  # type: ignore[union-attr]
            fix = f"{_restart(case)} if the keys were changed, or set PERMIFY_TOKEN to another key"
        else:
            message = f"Permify {permify.name} asks for a key, and the doctor has none"
            fix = credentials.no_token or "set PERMIFY_TOKEN to a key"
        yield Problem(case.facts.permify_at("authn"), message, fix)


def _restart(case: Case) -> str:
    """How Permify gets new keys; `docker compose restart` does not read `env_file` again."""
    if case.facts.platform == "docker":
        return "run docker compose up --wait --no-deps permify"
    if case.facts.platform == "kubernetes":
        return "restart it (kubectl rollout restart)"
    return "restart it"


@check(
    code="PD408",
    name="permify-answers-anyone",
    severity="error",
    why="The files have Permify ask its callers for a key, and the running one answers without. Anyone who"
    " reaches it may write schemas and relationships.",
    fix="It runs with other settings: apply the files, restart it, and look for PERMIFY_AUTHN_… variables.",
)
def permify_answers_anyone(case: Case) -> Iterator[Problem]:
    """Permify processes that answer a request without a key although the files say otherwise."""
    for permify in case.answers.permifys:
        if permify.answers_anyone:
            message = f"Permify {permify.name} answers a request without a key"
            yield Problem(case.facts.permify_at("authn"), message, "apply the files and restart it")
