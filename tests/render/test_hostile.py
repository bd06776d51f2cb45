"""Hostile answers end in one line with nothing written, or stand as inert text in every rendered file.

A pair is a key and a payload. Each comes by `--data`, a data file or an answers file that was edited by hand,
with `--every-combination` by all three. `SLY` are answers that the gate takes although some parser might read
them as something else: with them every file must parse to the same as with harmless ones.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from live.repeats import drawn
from rendering import Refused, environment, render, render_stored

RULES: Any = environment().get_template("questions/table.jinja").module

# Every text question with an answer that stands nowhere else, so that it can be found in the files.
HARMLESS = {
    "primary_host": "plainprimary",
    "replica_hosts": "plainreplica,plainother:5433",
    "database_name": "plain_database",
    "database_user": "plain_user",
    "namespace": "plainspace",
    "client_namespaces": "plainweb,plainjobs",
    "database_cidrs": "10.81.0.0/16,fd00:81::/64",
    "secret_store": "plainstore",
    "database_ca": "configmap/plainroots",
    "database_namespace": "plaindata",
    "database_labels": "plainkey=plainvalue,plainrole=plainprimary-1",
    "dns_cidrs": "10.82.0.10/32",
    "monitoring_namespace": "plainwatchers",
    "cors_allowed_origins": "https://plainapp.example,http://plainorigin",
    "runbook_url": "https://plain.example/runbook",
    "otlp_endpoint": "plaincollector.plaintracing:4318",
    "pgcat_image": "plainpgcat/plainimage:plaintag",
    "permify_image": "plainpermify/plainimage:plainversion",
    "pgcat_cpu": "251m",
    "pgcat_memory": "251Mi",
    "permify_cpu": "501m",
    "permify_memory": "501Mi",
    "priority_class": "plainclass",
    "client_tls_issuer": "plainissuer",
}

# Deployments that ask every question between them.
EVERYWHERE = {"authn": "preshared", "forge": "github", "postgres_max_connections": 1000, "advanced": True}
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "docker": {"topology": "docker", "database": "external", "monitoring": "prometheus"},
    "standalone": {
        **{"topology": "standalone", "client_tls": "cert-manager", "secrets": "external-secrets"},
        **{
            "monitoring": "prometheus-operator",
            "postgres_metrics": True,
            "permify_max_replicas": 4,
            "probe": True,
        },
    },
    "sidecar": {"topology": "sidecar", "monitoring": "prometheus"},
    "direct": {"topology": "standalone", "pooling": "direct", "database_tls": "verify-full"},
    "helm": {"topology": "standalone", "permify_install": "helm", "secrets": "external-secrets"},
}
UNASKED = {
    "docker": {"database_ca", "client_tls_issuer"},
    "standalone": {"database_ca"},
    "sidecar": {"database_ca", "client_tls_issuer"},
    "direct": {"client_tls_issuer"},
    "helm": {"database_ca", "client_tls_issuer"},
}
ASKED_IN = {"database_ca": "direct"}

HOSTILE: dict[str, str] = {
    "only blanks": "   ",
    "blank after": "{} ",
    "blank before": " {}",
    "tab": "{}\t",
    "line feed": "{}\n",
    "carriage return": "{}\r\n",
    "line inside": "{}\nevil: true",
    "document": "{}\n---\nkind: Secret",
    "vertical tab": "\x0b{}",
    "no-break space": "{}\u00a0",
    "ideographic space": "\u3000{}",
    "thin space inside": "a\u2009{}",
    "null byte": "{}\x00",
    "escape": "\x1b[2J{}",
    "bell": "{}\x07",
    "delete": "{}\x7f",
    "C1": "{}\x9b31m",
    "next line": "{}\x85",
    "line separator": "{}\u2028evil",
    "paragraph separator": "{}\u2029evil",
    "right to left": "\u202e{}",
    "isolate": "{}\u2066",
    "zero width": "{}\u200b",
    "joiner": "{}\u200d",
    "byte order mark": "\ufeff{}",
    "surrogate": "{}\ud800",
    "beyond the plane": "{}\U000e0001",
    "Kelvin": "\u212a{}",
    "full width": "\uff41{}",
    "umlaut": "{}\u00e4",
    "hangul filler": "{}\u3164",
    "long": "a" * 100_000,
    "long list": ",".join(["a"] * 5000),
    "expression": "{{{{ 7 * 7 }}}}{}",
    "statement": "{}{{% raw %}}",
    "comment": "{}{{# x #}}",
    "class": "{{{{ ''.__class__.__mro__ }}}}",
    "placeholder": "{}${{database_password}}",
    "workflow": "{}${{{{ secrets.TOKEN }}}}",
    "substitution": "{}$(touch evil)",
    "backticks": "{}`touch evil`",
    "hash": "{} # evil",
    "double quote": '{}"',
    "single quote": "{}'",
    "backslash": "{}\\",
    "semicolon": "{}; touch evil",
    "pipe": "{}|sh",
    "and": "{} && touch evil",
    "redirect": "{}>evil",
    "YAML tag": "!!python/object/apply:os.system ['id']",
    "YAML anchor": "&a {}",
    "YAML alias": "*a",
    "YAML map": "{}: evil",
    "YAML flow": "{{evil: {}}}",
    "YAML block": "|\n  {}",
    "TOML": '{}"]\n[general]\nhost = "evil',
    "SQL": '{}"; DROP ROLE permify; --',
    "SQL string": "{}'; DROP ROLE permify; --",
    "dollar quote": "{}$$; DROP ROLE permify; --",
    "URI": "{}@evil/x?sslmode=disable#",
    "path": "../../{}",
    "absolute path": "/etc/{}",
    "HTML": "{}<script>alert(1)</script>",
    "link": "{}](http://evil) [x",
    "code span": "{}`` `evil",
    "table": "{}|evil",
    "percent": "{}%s%n",
    "option": "--{}",
    "glob": "{}*",
    "home": "~{}",
    "Prometheus": '{}"}} or vector(1) #',
}
"""Payloads by name, `{}` where the harmless answer stands."""

NO_TEXT: dict[str, Any] = {
    "a date": datetime.date(2024, 1, 1),
    "a time": datetime.datetime(2024, 1, 1, 12, 30),
    "a set": {"a", "b"},
    "bytes": b"a",
    "nothing": None,
    "a list": ["a"],
    "a mapping": {"a": "b"},
    "not a number": float("nan"),
    "infinite": float("inf"),
    "a number": 7,
    "a huge number": 16**6000,
    "true": True,
}

CHANNELS = ("data", "data file", "answers file")
KEYS: list[str] = list(RULES.keys)


def payloads(key: str) -> dict[str, Any]:
    """Everything hostile for a key, by name."""
    found: dict[str, Any] = {}
    if key in HARMLESS:
        for name, payload in HOSTILE.items():
            found[name] = payload if len(payload) > 500 else payload.format(HARMLESS[key])
    for name, value in NO_TEXT.items():
        fits = (name == "a number" and key in RULES.numbers) or (name == "true" and key in RULES.booleans)
        if not fits:
            found[name] = value
    return found


def draw(key: str, every: bool) -> Iterator[tuple[str, str, Any]]:
    """Channel, name and payload: a third of the pairs by the channels in turn, or each by all of them."""
    for number, (name, value) in enumerate(payloads(key).items(), KEYS.index(key)):
        if every:
            yield from ((channel, name, value) for channel in CHANNELS)
        elif number % 3 == 0:
            yield CHANNELS[number // 3 % 3], name, value


def written(answers: dict[str, Any]) -> str:
    """Answers as YAML. PyYAML itself writes no lone surrogate and no number of more than 4300 digits."""
    lines = []
    for key, value in answers.items():
        if isinstance(value, str):
            text = "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
            lines.append(f'{key}: "{text}"\n')
        elif isinstance(value, int) and value > 10**60:
            lines.append(f"{key}: {value:#x}\n")
        else:
            lines.append(yaml.safe_dump({key: value}))
    return "".join(lines)


def give(channel: str, deploy: Path, answers: dict[str, Any]) -> Path:
    """Render with these answers, which come by this channel. Raises `Refused`."""
    if channel == "data":
        return render(deploy, answers)
    if channel == "data file":
        text = written(answers)
        return render(deploy, yaml.load(text, yaml.CSafeLoader if len(text) > 50_000 else yaml.SafeLoader))
    return render_stored(deploy, written(answers))


def test_every_text_question_is_here() -> None:
    assert set(HARMLESS) == set(RULES.texts)


def test_the_gate_reads_every_answer_raw() -> None:
    """Copier drops a date of the answers file without a word, so each row of the table reads its own."""
    answers = {key: f"answer of {key}" for key in KEYS}
    table: Any = environment().get_template("questions/table.jinja").make_module(answers)
    assert {key: rule["answer"] for key, rule in table.questions.items()} == answers


def test_there_are_enough_pairs() -> None:
    drawn = {(key, name) for key in KEYS for _, name, _ in draw(key, every=False)}
    assert len(drawn) >= 400
    assert {key for key, _ in drawn} == set(KEYS)
    assert {name for _, name in drawn} == {*HOSTILE, *NO_TEXT}


@pytest.mark.parametrize("key", KEYS)
def test_refused_in_one_line_or_inert(key: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base = {**DEPLOYMENTS[ASKED_IN.get(key, "standalone")], **EVERYWHERE}
    base |= {other: HARMLESS[other] for other in ("primary_host", "client_tls_issuer")}
    for number, (channel, name, value) in enumerate(
        draw(key, request.config.getoption("--every-combination"))
    ):
        deploy = tmp_path / str(number)
        try:
            give(channel, deploy, {**base, key: value})
        except Refused as refused:
            line = str(refused)
            assert f"pgcat-stack refuses {key}: " in line, f"{name} by {channel}: {line}"
            assert line.isprintable() and line.isascii() and len(line) < 1000, f"{name} by {channel}: {line}"
        else:
            assert isinstance(value, str), f"{name} by {channel} was taken"
            harmless = give("data", tmp_path / f"{number} harmless", {**base, key: HARMLESS[key]})
            inert(deploy, harmless, {HARMLESS[key]: value})
            shutil.rmtree(deploy)


WORDS = ["null", "true", "no", "1e3", "0x10", "2024-01-01", "y", "12e03", "123", "0o17", "nan", "on"]
"""Names of Kubernetes and of hosts that YAML could take for something else."""

SLY: dict[str, list[str]] = {
    "primary_host": ["null", "1e3", "0x10", "true", "y", "1-1"],
    "replica_hosts": ["false,nan:5433", "0x11,1e4:5433", "on,off:5433"],
    "database_name": ["null", "true", "__class__", "a--b", "NaN", "y", "select", "e1", "_", "user"],
    "database_user": ["user", "on", "__proto__", "c--d", "null", "n", "True", "E3", "_-_"],
    "namespace": WORDS,
    "client_namespaces": ["null,1e3", "0x10,yes", "2024-01-01,y", "1,2"],
    "database_cidrs": ["0.0.0.0/1,::/1", "1.2.3.4/32,2001:db8::/32"],
    "secret_store": WORDS[1:] + WORDS[:1],
    "database_ca": ["configmap/null", "configmap/1e3", "configmap/true.no", "configmap/1.5"],
    "database_namespace": WORDS[2:] + WORDS[:2],
    "database_labels": ["null=true,y=null", "1e3=0x10,on=off", "a.b=1.5,0=1", "a=12_3,b=2024-01-01"],
    "dns_cidrs": ["0.0.0.0/0", "::/0"],
    "monitoring_namespace": WORDS[3:] + WORDS[:3],
    "cors_allowed_origins": ["null://1,x-y.z+1://*.null", "https://*.example,http://[::1]:65535"],
    "runbook_url": [
        "https://x.example/$(touch%20evil)?a=%s%n&b=$HOME!!",
        "http://1e3:1/*!(a);touch,evil&amp;",
        "https://null/~:@$database_password$$)+=",
    ],
    "otlp_endpoint": ["null.true:4318", "1e3.0x10:4318", "12.y:4318"],
    "pgcat_image": ["null/on:null", "1e3/true:0x10", "12/1:2", "0/y:2.0"],
    "permify_image": ["true/1:no", "12/34:56", "null/0x1:1e3", "e1/2:3"],
    "pgcat_cpu": ["1", "1.5", "0.1"],
    "pgcat_memory": ["7000k", "8M", "1Gi"],
    "permify_cpu": ["2", "2.5", "0.2"],
    "permify_memory": ["9000k", "9M", "2Gi"],
    "priority_class": WORDS[4:] + WORDS[:4],
    "client_tls_issuer": WORDS[5:] + WORDS[:5] + ["1.5", "1.0e3"],
}
AMOUNTS = {"pgcat_cpu", "pgcat_memory", "permify_cpu", "permify_memory"}
"""Quantities, which Kubernetes takes as numbers, too."""


SLIEST = range(max(map(len, SLY.values())))


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("number", drawn(SLIEST, [number for number in SLIEST if number % 3]))
def test_what_looks_like_something_else_stays_text(
    name: str, number: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--every-combination") and (number + list(DEPLOYMENTS).index(name)) % 4:
        pytest.skip("drawn: the others run with --every-combination")
    asked = [key for key in HARMLESS if key not in UNASKED[name]]
    sly = {key: SLY[key][number % len(SLY[key])] for key in asked}
    plain = {key: sly[key] if key in AMOUNTS else HARMLESS[key] for key in asked}
    base = {**DEPLOYMENTS[name], **EVERYWHERE}
    deploy = give(CHANNELS[number % 3], tmp_path / "sly", {**base, **sly})
    stored = yaml.safe_load((deploy / ".copier-answers.yml").read_text())
    asked_there = {key: value for key, value in sly.items() if key in stored}
    assert {key: stored[key] for key in asked_there} == asked_there
    assert len(asked_there) > 10
    harmless = give("data", tmp_path / "plain", {**base, **plain})
    inert(deploy, harmless, {plain[key]: sly[key] for key in asked if key not in AMOUNTS})


def inert(deploy: Path, harmless: Path, instead: dict[str, str]) -> None:
    """Check that every file differs from the harmless deployment's only by the answers."""
    swap = swapping(instead)
    files = sorted(path.relative_to(deploy) for path in deploy.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(harmless) for path in harmless.rglob("*") if path.is_file())
    for file in files:
        judge = JUDGES.get(file.suffix, lines) if file.name != ".copier-answers.yml" else yaml.safe_load
        found = differences(judge((deploy / file).read_text()), swap(judge((harmless / file).read_text())))
        assert not found, f"{file}: {found[:3]}"
    for folder in (deploy, harmless):
        accepted_by_promtool(folder)
    recorded = [commands_of_readme(folder) for folder in (deploy, harmless)]
    assert recorded[0] == swap(recorded[1]) and recorded[0]


def differences(ours: Any, expected: Any) -> list[tuple[Any, Any]]:
    """The innermost parts in which two values differ."""
    if type(ours) is type(expected) and isinstance(ours, (list, tuple)) and len(ours) == len(expected):
        return [found for pair in zip(ours, expected, strict=True) for found in differences(*pair)]
    if isinstance(ours, dict) and isinstance(expected, dict) and ours.keys() == expected.keys():
        return [found for key in ours for found in differences(ours[key], expected[key])]
    return [] if ours == expected else [(ours, expected)]


def swapping(instead: dict[str, str]) -> Callable[[Any], Any]:
    """What puts the given answers in place of the harmless ones, in texts however deep, entry by entry."""
    table: dict[str, str] = {}
    for plain, given in instead.items():
        table[plain] = given
        for separators in (",", "[,=/:]", "[,=/:.]"):
            theirs, ours = re.split(separators, plain), re.split(separators, given)
            if len(theirs) == len(ours):
                named = [(a, b) for a, b in zip(theirs, ours, strict=True) if len(a) > len("plain")]
                table |= {a: b for a, b in named if "plain" in a or separators == ","}
    pattern = re.compile("|".join(re.escape(plain) for plain in sorted(table, key=len, reverse=True)))

    def swap(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: table[found[0]], value)
        if isinstance(value, dict):
            return {swap(key): swap(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(swap(each) for each in value)
        return value

    return swap


def without_digests(text: str) -> str:
    return re.sub(r"[a-z0-9-]*-[0-9a-f]{8}\b|\b([0-9a-f]{16}|[0-9a-f]{40})\b", "DIGEST", text)


def lines(text: str) -> Any:
    return without_digests(text).splitlines()


def of_toml(text: str) -> Any:
    return tomllib.loads(text)


def of_json(text: str) -> Any:
    return json.loads(text)


# Plain scalars that YAML 1.1, YAML 1.2 or a parser of Go takes for something else than text.
NO_STRING = re.compile(
    r"~|null|true|false|yes|no|on|off|y|n|<<|=|[-+]?\.(inf|nan)|[-+]?[0-9][0-9_,]*(\.[0-9_]*)?(e[-+]?[0-9]+)?"
    r"|[-+]?\.[0-9][0-9_]*(e[-+]?[0-9]+)?|[-+]?0x[0-9a-f_]+|0o?[0-7_]+|0b[01_]+"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9]*)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?|",
    re.IGNORECASE,
)


def of_yaml(text: str) -> Any:
    """Documents as nested lists; each scalar says whether it is text to every parser. No key stands twice."""
    return [of_node(node) for node in yaml.compose_all(text, yaml.CSafeLoader)]


def of_node(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"a key stands twice: {keys}"
        return [[of_node(key), of_node(value)] for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [of_node(each) for each in node.value]
    assert isinstance(node, yaml.ScalarNode)
    is_text = node.style not in (None, "") or NO_STRING.fullmatch(node.value) is None
    assert (node.tag == "tag:yaml.org,2002:str") >= is_text, node
    return f"{'text' if is_text else 'not text'}: {without_digests(node.value)}"


def of_sql(text: str) -> Any:
    """Tokens of SQL and psql: identifiers and texts in quotes, whole; within dollar quotes, tokens again."""
    tokens: list[Any] = []
    pattern = r"""--[^\n]*|/\*.*?\*/|"(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|\\\w+|\w+|\s+|."""
    for token in (found[0] for found in re.finditer(pattern, text, re.DOTALL)):
        quote = re.match(r"\$\w*\$", token)
        if quote and len(token) > 2 * len(quote[0]):
            tokens.append([quote[0], *of_sql(token[len(quote[0]) : -len(quote[0])])])
        elif not token.isspace():
            tokens.append(token)
    return tokens


def of_shell(text: str) -> Any:
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    return shlex.split(text, comments=True)


def of_markdown(text: str) -> Any:
    """The tree of a page as types, attributes and texts. Bash must take every block of bash."""
    found: list[Any] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for part in [token, *(token.children or [])]:
            content = "" if part.children else without_digests(part.content)
            found.append([part.type, part.tag, dict(part.attrs), content])
        if token.type == "fence" and token.info == "bash":
            checked = subprocess.run(["bash", "-n"], input=token.content, text=True, capture_output=True)
            assert checked.returncode == 0, checked.stderr
    return found


JUDGES: dict[str, Callable[[str], Any]] = {
    **{
        ".toml": of_toml,
        ".yaml": of_yaml,
        ".yml": of_yaml,
        ".json": of_json,
        ".sql": of_sql,
        ".md": of_markdown,
    },
    ".sh": lines,
}


@functools.cache
def promtool() -> str | None:
    return shutil.which("promtool")


def accepted_by_promtool(deploy: Path) -> None:
    rules = deploy / "monitoring" / "rules.yaml"
    if rules.exists() and promtool():
        checked = subprocess.run(
            ["promtool", "check", "rules", str(rules)], capture_output=True, text=True, timeout=60
        )
        assert checked.returncode == 0, checked.stderr


def commands_of_readme(deploy: Path) -> list[list[str]]:
    """The arguments of psql in the README's commands, run by a shell in which psql only notes them."""
    page = (deploy / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    setup = next(block for block in blocks if "ask_primary() {" in block)
    script = (
        'psql() { printf "%s\\0" "$@"; echo; }\ncat() { :; }\nkubectl() { :; }\ndocker() { :; }\n' + setup
    )
    script += (
        '\nask_primary "SELECT 1"\nif command -v ask_replicas >/dev/null; then ask_replicas "SELECT 2"; fi\n'
    )
    script += next(block for block in blocks if "bootstrap.sql" in block)
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-eu", "-c", script],
        cwd=deploy,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/nowhere"},
    )
    assert done.returncode == 0 and not (deploy / "evil").exists(), done.stderr
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]
