"""PD1xx: who answers, and who runs."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.budget import peak
from pgcat_stack.doctor.case import ELSEWHERE, Case
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.expected import Facts
from pgcat_stack.doctor.pgcat import PgcatAnswer
from pgcat_stack.doctor.platforms import FileLimit, Process
from pgcat_stack.doctor.side_by_side import Kind, Trouble
from pgcat_stack.doctor.trust import DATABASE_CA, PGCAT_CA
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BUDGET
from pgcat_stack.reading.workloads import Program, Workload

NAMES: dict[Program, str] = {"pgcat": "PgCat", "permify": "Permify"}
AWAY = ("unreachable", "mute", "refused", "failed")
RECENT_SECONDS = 3600.0
FEW_FILES = 4096
"""As start.sh has it: with fewer it says so."""
NEARLY_ALL = 0.9


@check(
    code="PD101",
    name="postgresql-not-reached",
    severity="error",
    why="The server answers neither here nor through PgCat. Where it answers PgCat but not this machine, the"
    " doctor asks it through PgCat and only notes that.",
    fix="If PgCat cannot reach it either, the server or the network between is down. If only this machine"
    " cannot, run the doctor where it can, or name an address with `--reach`.",
)
def postgresql_not_reached(case: Case) -> Iterator[Problem]:
    """Servers that said nothing, by any way."""
    for server, answer in case.servers:
        trouble = answer.trouble
        if answer.facts is None and trouble is not None and trouble.kind in AWAY:
            message = f"the {server.role} {server.address} does not answer: {trouble.text}"
            elsewhere = ", and nothing came through PgCat" if case.facts.fronted else ""
            fix = f"is it up? if it is, reach it by --reach {server.address}=HOST:PORT"
            yield Problem(case.facts.budget_at(server, "host"), message + elsewhere, fix)


@check(
    code="PD102",
    name="pgcat-not-reached",
    severity="error",
    why="Permify's connections go through PgCat: where none answers, every request fails.",
    fix="Look at its log and its state; where it serves and only this machine does not reach it, name an"
    " address with `--reach pgcat=HOST:PORT`. Connection refused: it does not run, or not there. A PgCat that"
    " takes connections and does not answer is at its limit of open files (`Too many open files` in its log,"
    " see PD111), or its node is out of CPU.",
)
def pgcat_not_reached(case: Case) -> Iterator[Problem]:
    """PgCat processes that did not answer."""
    for pgcat in case.answers.pgcats:
        if pgcat.trouble is not None and pgcat.trouble.kind in AWAY:
            message = f"PgCat {pgcat.name} does not answer: {pgcat.trouble.text}"
            fix = case.answers.hint or _logs(case.facts, "pgcat")
            if pgcat.trouble.kind == "mute":
                fix = f"is it at its limit of open files (Too many open files in its log), or stuck? {fix}"
            yield Problem(case.facts.pgcat_at("general", "port"), message, fix)


@check(
    code="PD103",
    name="permify-not-reached",
    severity="error",
    why="Nobody gets an answer from a Permify that does not answer here, unless this machine is cut off.",
    fix="Look at its log and its state; where it serves and only this machine does not reach it, name an"
    " address with `--reach permify=HOST:PORT`.",
)
def permify_not_reached(case: Case) -> Iterator[Problem]:
    """Permify processes that did not answer."""
    for permify in case.answers.permifys:
        trouble = permify.trouble
        if permify.place is None and trouble is not None and trouble.kind not in ELSEWHERE:
            message = f"Permify {permify.name} does not answer: {trouble.text}"
            place = case.facts.permify_at("server", "http", "port")
            yield Problem(place, message, case.answers.hint or _logs(case.facts, "permify"))


@check(
    code="PD104",
    name="exporter-not-reached",
    severity="warning",
    why="Prometheus reads PgCat by this port: without it alerts and dashboards see nothing.",
    fix="PgCat logs why its exporter did not start, such as a port in use; network policies may keep others"
    " from it.",
)
def exporter_not_reached(case: Case) -> Iterator[Problem]:
    """Exporters that did not answer beside a PgCat that did."""
    for pgcat in case.answers.pgcats:
        trouble = pgcat.exporter if not isinstance(pgcat.exporter, dict) else None
        away = pgcat.trouble is not None and pgcat.trouble.kind in AWAY
        if trouble is not None and trouble.kind not in ELSEWHERE and not away:
            message = f"the exporter of PgCat {pgcat.name} does not answer: {trouble.text}"
            place = case.facts.pgcat_at("general", "prometheus_exporter_port")
            yield Problem(place, message, _logs(case.facts, "pgcat"))


@check(
    code="PD105",
    name="no-password",
    severity="warning",
    why="Checks that need a login are not run without its password; nothing is wrong with the deployment.",
    fix="Set the variable that the message names, or run the doctor where the deployment's secrets are.",
)
def no_password(case: Case) -> Iterator[Problem]:
    """What could not be asked for want of a password."""
    database, admin = case.credentials.database, case.credentials.admin
    if database.value is None and case.facts.servers:
        place = case.facts.budget_at(case.facts.servers[0], "host")
        yield Problem(place, "PostgreSQL was not asked: no password of its role", database.missing)
    if admin.value is None and case.facts.fronted:
        place = case.facts.pgcat_at("general", "admin_password")
        yield Problem(
            place, "PgCat's own figures were not asked for: no password of its administrator", admin.missing
        )


@check(
    code="PD106",
    name="processes-missing",
    severity="error",
    why="Fewer processes run than the files say: the others carry their load, and a lost one more may be the"
    " last.",
    fix="Look at why they do not run: the platform's events, quota, or somebody who scaled them down.",
)
def processes_missing(case: Case) -> Iterator[Problem]:
    """Fewer processes than the files have replicas."""
    for workload, processes in _counted(case):
        count, wanted = len(processes), workload.replicas.value
        if count < wanted:
            message = f"{count} of {wanted} {NAMES[workload.program]} processes run"
            fix = _start(case.facts, workload)
            if not count and case.answers.hint:
                fix = f"{case.answers.hint} else {fix}"
            yield Problem(workload.replicas.location, message, fix)


@check(
    code="PD107",
    name="more-processes-than-planned",
    severity="error",
    why="The connection budget counts the most processes that the files allow. More of them can ask"
    " PostgreSQL for more connections than it has.",
    fix="Scale back, or raise the number in the files so that the validator counts it.",
)
def more_processes_than_planned(case: Case) -> Iterator[Problem]:
    """More processes than the budget's instances."""
    for workload, processes in _counted(case):
        instances = peak(workload)
        if workload.counted and len(processes) > instances.count:
            message = (
                f"{len(processes)} {NAMES[workload.program]} processes run, and the budget counts"
                f" {instances.count} = {instances.words}"
            )
            yield Problem(workload.replicas.location, message, f"scale back to {workload.replicas.value}")


@check(
    code="PD108",
    name="process-unwell",
    severity="error",
    why="Docker or Kubernetes itself says that a container of the deployment does not run as it should.",
    fix="Its log says why: `docker compose logs NAME`, `kubectl logs POD -c NAME --previous`.",
)
def process_unwell(case: Case) -> Iterator[Problem]:
    """Containers that are not ready, have ended, or were just restarted."""
    for process in case.answers.processes or ():
        place = _place(case.facts, process)
        recent = process.restarted_seconds_ago is not None and process.restarted_seconds_ago < RECENT_SECONDS
        if place is not None and process.trouble:
            yield Problem(place.location, f"{process.name} ({process.program}) {process.trouble}", place.fix)
        elif place is not None and recent and not process.going:
            minutes = (process.restarted_seconds_ago or 0) / 60
            times = "once" if process.restarts == 1 else f"{process.restarts} times"
            message = f"{process.name} ({process.program}) was restarted {times}, last {minutes:.0f} min ago"
            yield Problem(place.location, message, place.fix)


@check(
    code="PD109",
    name="image-differs",
    severity="error",
    why="What runs is not what the files say: they were not applied, or somebody changed the running object.",
    fix="Apply the files again, or bring the change into them.",
)
def image_differs(case: Case) -> Iterator[Problem]:
    """Containers whose image is not that of the files."""
    for process in case.answers.processes or ():
        for container in case.facts.deployment.containers:
            image = container.data.get("image")
            named = container.name == process.program and container.program in ("pgcat", "permify")
            if named and isinstance(image, str) and "$" not in image and not process.going:
                if process.image and process.image != image:
                    message = f"{process.name} runs {process.image}, and the files say {image}"
                    yield Problem(container.at("image"), message, _apply(case.facts))
                break


@check(
    code="PD114",
    name="postgresql-not-asked",
    severity="warning",
    why="The server was asked neither from here nor through PgCat, which gave other servers of its pool each"
    " time: it is down, or it is only not reached from here and PgCat prefers others. Whether it is well was"
    " not judged.",
    fix="If PgCat's log has `Banning instance` or `Connection checkout error` for it, it is down. Otherwise"
    " run the doctor again, or name an address with `--reach`.",
)
def postgresql_not_asked(case: Case) -> Iterator[Problem]:
    """Servers that nothing is known of, although their pool serves."""
    for server, answer in case.servers:
        trouble = answer.trouble
        if trouble is not None and trouble.kind == "unmet":
            message = (
                f"the {server.role} {server.address} was not asked: {trouble.text}, and PgCat gave other"
                " servers of its pool"
            )
            fix = f"is it up? if it is, reach it by --reach {server.address}=HOST:PORT"
            yield Problem(case.facts.budget_at(server, "host"), message, fix)


@check(
    code="PD110",
    name="question-failed",
    severity="error",
    why="The doctor could not put a question, or could not read the answer: another program answers there,"
    " the program is of a version that it does not know, the connection broke, or the doctor itself is"
    " wrong. What that question would have shown was not judged; everything else was.",
    fix="Run the doctor again. If the line stays, look at what answers there and at its version, and report"
    " the line.",
)
def question_failed(case: Case) -> Iterator[Problem]:
    """Questions that ended in an error that nobody expected."""
    for broken in case.answers.broken:
        message = f"not judged, the question itself failed: {broken.question}: {broken.error}"
        yield Problem(
            _about(case.facts, broken.question), message, "run it again; if it stays, report this line"
        )


def _about(facts: Facts, question: str) -> Location:
    """The place in the files of what a question is about."""
    if "PgCat" in question and facts.fronted:
        return facts.pgcat_at("general", "port")
    if "Permify" in question:
        return facts.permify_at("server", "http", "port")
    return facts.budget_at(facts.servers[0], "host") if facts.servers else Location(BUDGET)


@check(
    code="PD111",
    name="open-files-used-up",
    severity="error",
    why="PgCat has nearly as many files open as it may: each client and each server connection is one. At the"
    " limit it accepts no client and writes `Too many open files` thousands of times a second.",
    fix="Raise the hard limit (`nofile`) of the container runtime and restart PgCat, or let fewer clients"
    " connect: fewer Permify processes for each PgCat, or a smaller `permify_max_connections`.",
)
def open_files_used_up(case: Case) -> Iterator[Problem]:
    """PgCat processes close to their limit of open files."""
    for pgcat in case.answers.pgcats:
        files = pgcat.files
        if files is not None and files.soft is not None and files.used >= NEARLY_ALL * files.soft:
            open_files = f"PgCat {pgcat.name} has {files.used} of {files.soft} files open"
            message = f"{open_files}: at the limit it takes no client"
            yield Problem(case.facts.pgcat_at("general"), message, _more_files(files))


@check(
    code="PD113",
    name="few-open-files",
    severity="warning",
    why="PgCat may open few files, and each client and each server connection is one. start.sh raises the"
    " soft limit to the hard one, so the container runtime gives no more, or PgCat was started another way.",
    fix="Raise the hard limit (`nofile`) of the container runtime and restart PgCat.",
)
def few_open_files(case: Case) -> Iterator[Problem]:
    """PgCat processes that may open few files, and have not used them up."""
    for pgcat in case.answers.pgcats:
        files = pgcat.files
        if (
            files is not None
            and files.soft is not None
            and files.used < NEARLY_ALL * files.soft < NEARLY_ALL * FEW_FILES
        ):
            message = f"PgCat {pgcat.name} may open {files.soft} files, and has {files.used} open"
            yield Problem(case.facts.pgcat_at("general"), message, _more_files(files))


def _more_files(files: FileLimit) -> str:
    if files.soft is not None and (files.hard is None or files.hard > files.soft):
        return "start it by start.sh, which raises the soft limit to the hard one"
    return "raise the hard limit (nofile) of the container runtime, then restart PgCat"


@check(
    code="PD112",
    name="not-trusted",
    severity="error",
    why="What answers may be a stranger: its certificate is refused, it does without the TLS that the files"
    " ask for, or it asks for the password in clear. It got no password.",
    fix="Find out who answers at this address. If it is your server, correct its certificate, its name in"
    " the files, or the CA. A `pg_hba.conf` with `password`, `ldap`, `pam` or `radius` asks for passwords in"
    " clear: the doctor does not log in there.",
)
def not_trusted(case: Case) -> Iterator[Problem]:
    """PostgreSQL servers and PgCat processes that have not proven who they are."""
    for server, answer in case.servers:
        trouble = answer.trouble
        if trouble is not None and trouble.kind == "untrusted":
            place = case.facts.encryption(server.address).location
            message = f"the {server.role} {server.address} is not trusted and got no password: {trouble.text}"
            yield Problem(place, message, _doubt(trouble, server.address.host, DATABASE_CA))
    for pgcat in case.answers.pgcats:
        trouble = first_of(pgcat, "untrusted")
        if trouble is not None:
            place, host = case.facts.pgcat_encryption.location, case.facts.pgcat_encryption.host
            message = f"PgCat {pgcat.name} is not trusted and got no password: {trouble.text}"
            yield Problem(place, message, _doubt(trouble, host, PGCAT_CA))


def _doubt(trouble: Trouble, host: str, variable: str) -> str:
    if "certificate" in trouble.text:
        return (
            f"who answers? if it is yours, give it a certificate for {host}, or correct the CA ({variable})"
        )
    if "TLS" in trouble.text:
        return "who answers? if it is yours, turn its TLS on"
    if "in clear" in trouble.text:
        return "who answers? if it is yours, use scram-sha-256 in pg_hba.conf"
    return "who answers at this address?"


def first_of(pgcat: PgcatAnswer, kind: Kind) -> Trouble | None:
    """The first trouble of this kind with a PgCat, in its admin database or in a pool."""
    troubles = [pgcat.trouble, *(said for said in pgcat.through.values() if isinstance(said, Trouble))]
    return next((trouble for trouble in troubles if trouble is not None and trouble.kind == kind), None)


def _counted(case: Case) -> Iterator[tuple[Workload, list[Process]]]:
    """Each workload of these files with its processes, where the platform has told them."""
    if case.answers.processes is None:
        return
    for workload in case.facts.topology.workloads:
        if workload.kind in ("compose", "deployment", "statefulset"):
            name = workload.container.name if workload.container is not None else workload.program
            yield (
                workload,
                [p for p in case.answers.processes if p.program == name and not p.going],
            )


def _place(facts: Facts, process: Process) -> Problem | None:
    """Where the files have a process, with the command that shows its log; None for what is not of them."""
    for container in facts.deployment.containers:
        if container.name == process.program and container.own:
            if facts.platform == "docker":
                command = f"docker compose logs --tail 20 {process.program}"
                if process.trouble == "is paused":
                    command = f"docker compose unpause {process.program}"
                elif process.trouble.startswith("is exited"):
                    command += ", then docker compose up --wait"
                return Problem(container.at(), "", command)
            return Problem(
                container.at(), "", f"kubectl{_scope(facts)} logs {process.name} -c {process.program}"
            )
    return None


def _logs(facts: Facts, program: Program) -> str:
    if facts.platform == "docker":
        return f"docker compose logs --tail 20 {program}"
    return f"kubectl{_scope(facts)} get pods, and the log of this one"


def _start(facts: Facts, workload: Workload) -> str:
    if facts.platform == "docker":
        return "docker compose up --wait"
    return f"kubectl{_scope(facts)} get pods,events; kubectl apply -k . restores the number"


def _apply(facts: Facts) -> str:
    return "docker compose up --wait" if facts.platform == "docker" else "kubectl apply -k ."


def _scope(facts: Facts) -> str:
    return f" -n {facts.namespace}" if facts.namespace else ""
