#!/bin/sh
# Runs all tests, suite by suite, and prints the time of each. With arguments: only these suites.
set -u
cd "$(dirname "$0")/../.."
# A snapshot that differs is a failure; insta must not write a file to review.
export INSTA_UPDATE=no
# Errors list their causes; a backtrace through the runtime would add nothing.
export RUST_LIB_BACKTRACE=0

times=
failed=
# step NAME COMMAND…
step() {
    name=$1
    shift
    echo "== $name"
    start=$(date +%s)
    "$@" || failed="$failed $name"
    times="$times$(printf '%6d s  %s' $(($(date +%s) - start)) "$name")
"
}
suites() { cargo test --quiet --workspace --test suites -- "$@"; }

# One build for everything: the suites run the programs, built with the same features as the tests.
step build cargo build --quiet --workspace --bins --tests
[ -z "$failed" ] || exit 1
if [ $# -eq 0 ]; then
    step unit cargo test --quiet --workspace --lib --bins
    others=$(ls service/tests/*.rs registry/tests/*.rs proxy/tests/*.rs 2>/dev/null | sed 's|.*/||; s|\.rs$||; s|^|--test |')
    [ -z "$others" ] || step crates cargo test --quiet --workspace $others
    step doc cargo test --quiet --workspace --doc
    # The suites are the modules of the test binary.
    set -- $(suites --list | sed -n 's/^\([a-z_0-9]*\)::.*: test$/\1/p' | sort -u)
fi
for suite in "$@"; do
    # A filter is found anywhere in a name: `page::` would run `status_page`, too.
    step "$suite" suites "$suite::" --skip "_$suite::"
done

printf '\n%s' "$times"
if [ -n "$failed" ]; then
    echo "FAILED:$failed" >&2
    exit 1
fi
