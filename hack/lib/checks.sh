# shellcheck shell=bash
# A very small test frame for hack/interop. A check is a function named <engine>_check_<name>: it runs in a subshell
# under set -e with a time limit, and what it prints is shown only when it fails. <engine>_clean runs after each.

# shellcheck disable=SC2154 # $top, $logs, $pattern, $runtime: set by hack/interop

passed=0
failed=0
skipped=0
# Seconds for one check: far above what any needs, so that only a hang can reach it.
limit=${INTEROP_LIMIT:-90}

ok() {
    passed=$((passed + 1))
    say "ok    $1"
}

# not_ok NAME LOG
not_ok() {
    failed=$((failed + 1))
    say "FAIL  $1"
    tail -n 25 "$2" | sed 's/^/      | /'
}

# skip REASON: to be called in a check that cannot run here.
skip() {
    say "$*"
    exit 77
}

# known_of RUNTIME REASON: the check ends here for that one; its difference is known, and nobody's to repair here.
known_of() {
    [ "$(basename "$runtime")" = "$1" ] || return 0
    say "known difference of $1: $2"
    exit 78
}

# allowed NAME: may this check be skipped? Outside of CI any may.
allowed() { [ -z "${CI:-}" ] || sed 's/ *#.*//' "$top/runtime-tests/skips.allow" | grep -qx "$1"; }

# run_checks ENGINE: in the order of the file, those whose name matches $pattern.
run_checks() {
    local engine=$1 name names
    mapfile -t names < <("${engine}_names" 2>/dev/null || names_in "$engine" "$top/hack/lib/interop-$engine.sh")
    for name in "${names[@]}"; do
        [[ -z $pattern || $name == *$pattern* ]] || continue
        run_check "$engine" "$name"
    done
}

# names_in ENGINE FILE: the checks that are written there. An engine that has more of them defines ENGINE_names.
names_in() { sed -n "s/^${1}_check_\([a-z0-9_]*\)() .*/\1/p" "$2"; }

run_check() {
    local engine=$1 name=$2 log=$logs/$1.$2.log job clock status=0
    # Job control gives the check a process group of its own, so that a hanging one can be killed whole.
    set -m
    (
        set +m
        set -euo pipefail
        # The trace has a descriptor of its own: a check that reads a command's standard error must not read this.
        exec 9>&2
        BASH_XTRACEFD=9
        set -x
        "${engine}_check_${name}"
    ) >"$log" 2>&1 </dev/null &
    job=$!
    sleep "$limit" &
    clock=$!
    set +m
    wait -n "$job" "$clock" || true
    if kill -KILL "$clock" 2>/dev/null; then
        wait "$job" || status=$?
    else
        say "no end after $limit s" >>"$log"
        kill -KILL -- "-$job" 2>/dev/null || true
        status=124
    fi
    wait "$clock" 2>/dev/null || true
    case $status in
    0) ok "$engine: ${name//_/ }" ;;
    77 | 78)
        skipped=$((skipped + 1))
        say "skip  $engine: ${name//_/ }: $(grep -v '^+' "$log" | tail -n 1)"
        if [ "$status" = 77 ] && ! allowed "interop::$engine::$name"; then
            not_ok "interop::$engine::$name was skipped and is not in runtime-tests/skips.allow" /dev/null
        fi
        ;;
    *) not_ok "$engine: ${name//_/ }" "$log" ;;
    esac
    "${engine}_clean" >>"$log" 2>&1 </dev/null || true
}

# same GOT WANTED: the two strings are equal.
same() {
    [ "$1" = "$2" ] && return
    printf 'expected: %q\n     got: %q\n' "$2" "$1"
    return 1
}

# like GOT REGEX: the bash regular expression matches somewhere.
like() {
    [[ $1 =~ $2 ]] && return
    printf 'expected a match of: %s\n                got: %q\n' "$2" "$1"
    return 1
}

# status_of WANTED COMMAND...: the command exits with that status; its output is passed on.
status_of() {
    local wanted=$1 got=0
    shift
    "$@" || got=$?
    [ "$got" = "$wanted" ] && return
    printf 'expected exit status %s, got %s: %s\n' "$wanted" "$got" "$*" >&2
    return 1
}

# until_true COMMAND...: repeat until it succeeds; for effects that engines bring about in the background.
until_true() {
    local try
    for try in {1..200}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    printf 'still false after %s tries: %s\n' "$try" "$*"
    return 1
}

# Does this script's root have less than the kernel's whole list of capabilities?
lacks_capabilities() {
    local last=0
    read -r last </proc/sys/kernel/cap_last_cap
    [ "$(awk '/^CapBnd/ { print $2 }' /proc/self/status)" != "$(printf '%016x' $(((1 << (last + 1)) - 1)))" ]
}

# cgroup_value V1FILE V2FILE: commands for a shell in the container that print a limit of its own cgroup.
cgroup_value() { printf 'cat /sys/fs/cgroup/%s 2>/dev/null || cat /sys/fs/cgroup/%s' "$1" "$2"; }

# on_terminal COMMAND: run it on a pseudo terminal with this script's standard input; its output without \r. By bash,
# whatever $SHELL says: the command may be a function that was exported.
on_terminal() { SHELL=$BASH script --quiet --return --echo never --command "$1" /dev/null | tr -d '\r'; }
