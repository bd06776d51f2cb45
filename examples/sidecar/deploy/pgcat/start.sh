#!/bin/sh
# Fills the placeholders of pgcat.toml from secret files, into memory, and becomes PgCat.
#   "${name}" in pgcat.toml  <-  the one line of $SECRETS_DIR/name
# exec keeps PgCat at process 1, where SIGINT from the container runtime reaches it and drains.
set -eu

config=${PGCAT_CONFIG:-/etc/pgcat/pgcat.toml}
secrets=${SECRETS_DIR:-/run/secrets}
filled=${PGCAT_RUN_DIR:-/run/pgcat}/pgcat.toml

fail() {
    echo "start.sh: $1" >&2
    exit 78
}

# Lists the names of the placeholders, or prints pgcat.toml with them filled. A line is read string by string, so that a
# placeholder in a comment, or within other text, is left alone. What a secret holds is never a pattern, a replacement or an
# argument, so no character in it means anything; TOML's own two are escaped. LC_ALL=C: passwords are bytes here.
placeholders() {
    LC_ALL=C SECRETS_DIR="$secrets" awk -v task="$1" '
        function secret(name,    file, value) {
            if (!(name in filled)) {
                file = ENVIRON["SECRETS_DIR"] "/" name
                if ((getline value < file) != 1) exit 1
                close(file)
                filled[name] = toml(value)
            }
            return filled[name]
        }
        function toml(value,    escaped, i, part) {
            escaped = ""
            for (i = 1; i <= length(value); i += 8192) { # in parts, or BusyBox takes minutes for 1 MB
                part = substr(value, i, 8192)
                gsub(/["\\]/, "\\\\&", part)
                escaped = escaped part
            }
            return escaped
        }
        {
            before = ""
            rest = $0
            while (match(rest, /^[^#"\047]*("([^"\\]|\\.)*"|\047[^\047]*\047)/)) {
                text = substr(rest, 1, RLENGTH)
                rest = substr(rest, RLENGTH + 1)
                if (text ~ /^[^"\047]*"\$\{[A-Za-z0-9_]+\}"$/) {
                    quote = index(text, "\"")
                    name = substr(text, quote + 3, length(text) - quote - 4)
                    if (task == "list") print name
                    else text = substr(text, 1, quote) secret(name) "\""
                }
                before = before text
            }
            if (task == "fill") print before rest
        }
    ' <"$config"
}

# One line of text, with or without a line end, and nothing that TOML or a password cannot hold.
check() {
    file=$secrets/$1
    { [ -f "$file" ] && [ -r "$file" ]; } || fail "secret $file is missing or unreadable: create it, then start again"
    size=$(wc -c <"$file")
    text=$(LC_ALL=C tr -d '\000-\037\177' <"$file" | wc -c)
    line_end=$(tail -c 1 "$file" | LC_ALL=C tr -cd '\n' | wc -c)
    [ "$text" -gt 0 ] || fail "secret $file is empty: write the password into it"
    [ "$((text + line_end))" -eq "$size" ] ||
        fail "secret $file is not one line of text: remove line breaks, carriage returns, tabs and other control characters"
    if command -v iconv >/dev/null && ! iconv -f UTF-8 -t UTF-8 "$file" >/dev/null 2>&1; then
        fail "secret $file is not UTF-8: write the password anew"
    fi
}

{ [ -f "$config" ] && [ -r "$config" ]; } || fail "$config is missing or unreadable: mount pgcat.toml there"
[ "$filled" != "$config" ] || fail "$config would be written over: let PGCAT_RUN_DIR name another folder, in memory"
rm -f "$filled" 2>/dev/null || : # of an earlier start

names=$(placeholders list)
for name in $names; do
    check "$name"
done

# Each client and each server connection is an open file. Containers often start with a soft limit of 1024, which may be raised
# to a much higher hard limit. At its limit PgCat accepts no client and writes gigabytes of "Too many open files" into its log.
# 65536 is for a kernel that refuses its own hard limit because fs.nr_open is lower.
for files in "$(ulimit -Hn)" 65536; do
    if ulimit -n "$files" 2>/dev/null; then break; fi
done
files=$(ulimit -Sn)
if [ "$files" != unlimited ]; then
    raise="raise the hard limit (nofile) of the container runtime"
    [ "$files" -ge 256 ] || fail "only $files files may be open, too few for PgCat's pools and clients: $raise"
    [ "$files" -ge 4096 ] ||
        echo "start.sh: only $files files may be open, so PgCat serves fewer clients than that: $raise" >&2
fi

umask 077
# In a subshell, since the shell itself would end at a file that cannot be opened.
if ! (placeholders fill >"$filled") 2>/dev/null; then
    rm -f "$filled" 2>/dev/null || :
    fail "$filled cannot be written: mount a tmpfs with room for it at ${filled%/*}"
fi

exec pgcat "$filled" --no-color # logs are read by programs, too
