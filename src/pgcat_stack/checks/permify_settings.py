"""PS3xx: Permify's configuration against the strict model of what Permify reads."""

from __future__ import annotations

from pgcat_stack.checks._settings import rules_for

_rule = rules_for("permify", lambda reading: reading.permify, lambda reading: reading.permify_reading)

_rule(
    "PS301",
    "unknown-key",
    "Permify ignores keys that it does not know or that stand in the wrong section, and keeps its default: a"
    " `database` in the wrong place means the engine in memory.",
    "Correct the spelling, or move the key to the section that is named.",
)
_rule(
    "PS302",
    "wrong-type",
    "Permify does not start with a value of another type.",
    "Write the value as the type that is named.",
)
_rule(
    "PS303",
    "out-of-range",
    "Permify takes the number and then cannot work with it.",
    "Choose a value inside the range.",
)
_rule(
    "PS304",
    "unknown-value",
    "Permify knows only these words here; another one stops it or is replaced by a default.",
    "Use one of the values that are named.",
)
_rule(
    "PS305",
    "duration",
    "A number without a unit means nanoseconds, so that every connection would be replaced at once.",
    "Write a number with a unit, such as 30s, 5m or 1h30m.",
)
_rule(
    "PS306",
    "deprecated-key",
    "Permify still reads the old name, which a later version will drop.",
    "Use the new name.",
    severity="warning",
)
_rule(
    "PS307",
    "engine",
    "Without `engine: postgres` Permify keeps everything in memory: it starts, looks healthy and forgets all"
    " at the next restart.",
    "Write `engine: postgres` under `database`.",
)
_rule(
    "PS308",
    "database-uris",
    "Permify opens a pool for writes and one for reads. Where a URI is missing its driver goes by the"
    " environment, and `uri` silently wins over both. It ends where a list of hosts has IPv6 in brackets.",
    "Set `writer.uri` and `reader.uri`, and leave `uri` out. Several hosts with IPv6 stand among the options:"
    " `?host=fd00::11,db-2&port=5432,5432`.",
)
_rule(
    "PS309",
    "garbage-collection",
    "Garbage collection needs three times: at 0 Permify panics, never ends a run, or deletes too much.",
    "Set `interval`, `timeout` and `window`.",
)
_rule(
    "PS310",
    "auto-migrate",
    "Migrations take no lock: processes that start together race, and they would migrate through the pooler.",
    "Write `auto_migrate: false` and migrate once, directly on the primary.",
)
_rule(
    "PS311",
    "empty-section",
    "A key without a value keeps Permify's default, which is rarely what an empty section is meant to say.",
    "Give the key a value, or remove it.",
    severity="warning",
)
_rule(
    "PS312",
    "connections",
    "Each Permify process opens two pools of up to `max_connections`; without the key it is 20, which the"
    " budget of a session pool or a direct connection does not hold.",
    "Set `max_connections`, and keep the minimums below it.",
)
