#!/bin/sh
# Fills the placeholders of pgcat.toml from secret files, into memory, and becomes PgCat.
#   ${name} in pgcat.toml  <-  $SECRETS_DIR/name
# exec keeps PgCat at process 1, where SIGINT from the container runtime reaches it and drains.
set -eu

config=${PGCAT_CONFIG:-/etc/pgcat/pgcat.toml}
secrets=${SECRETS_DIR:-/run/secrets}
filled=${PGCAT_RUN_DIR:-/run/pgcat}/pgcat.toml

fail() {
    echo "start.sh: $1" >&2
    exit 78
}

[ -r "$config" ] || fail "$config cannot be read: mount pgcat.toml there"

names=$(sed -n 's/^[^#]*"${\([a-z_]*\)}".*$/\1/p' "$config" | sort -u)
for name in $names; do
    [ -r "$secrets/$name" ] || fail "secret $secrets/$name is missing or unreadable: create it, then start again"
    [ -s "$secrets/$name" ] || fail "secret $secrets/$name is empty: write the password into it"
done

umask 077
: >"$filled" || fail "$filled cannot be written: mount a tmpfs at ${filled%/*}"

# LC_ALL=C: passwords are bytes here, whatever their encoding. The text of a secret is never a pattern, a replacement or
# an argument, so no character in it means anything; TOML's own two are escaped.
LC_ALL=C SECRETS_DIR="$secrets" awk '
    function secret(name,    file, line, value, lines) {
        file = ENVIRON["SECRETS_DIR"] "/" name
        lines = 0
        while ((getline line < file) > 0) {
            value = line
            lines++
        }
        close(file)
        if (lines != 1 || value ~ /[\001-\037\177]/) {
            print "start.sh: secret " file " is not one line of text: remove line breaks and control characters" > "/dev/stderr"
            exit 78
        }
        return toml(value)
    }
    function toml(value,    escaped, i, character) {
        escaped = ""
        for (i = 1; i <= length(value); i++) {
            character = substr(value, i, 1)
            escaped = escaped (character == "\\" || character == "\"" ? "\\" character : character)
        }
        return escaped
    }
    /^[^#]*"\$\{[a-z_]+\}"/ {
        match($0, /\$\{[a-z_]+\}/)
        $0 = substr($0, 1, RSTART - 1) secret(substr($0, RSTART + 2, RLENGTH - 3)) substr($0, RSTART + RLENGTH)
    }
    { print }
' "$config" >"$filled" || exit 78

exec pgcat "$filled"
