#!/usr/bin/env bash
# Installs what only tests need: strace (failing syncs), xfsprogs (power cuts on a loop mount), valgrind (counts of instructions).
# Never an error: a test whose tool is missing says so and is skipped.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
command -v strace >/dev/null || missing+=(strace)
command -v mkfs.xfs >/dev/null && command -v xfs_io >/dev/null || missing+=(xfsprogs)
command -v valgrind >/dev/null || missing+=(valgrind)
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
export DEBIAN_FRONTEND=noninteractive
echo "Installing for the tests: ${missing[*]}"
if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1; then
    echo "warning: could not install ${missing[*]}; the tests that need it are skipped" >&2
fi
