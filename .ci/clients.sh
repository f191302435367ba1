#!/usr/bin/env bash
# Real clients against a cluster of three datacenters (tests/clients): installs what they need, runs them, sums up.
# FULL=1 runs the slow ones too. What can't be installed is skipped and said; a failing client is an error.
# Usage: .ci/clients.sh MERIDIAN [pytest's arguments]
set -uo pipefail
export MERIDIAN_BIN=$1
shift
venv="$MERIDIAN_CACHE/clients-venv"
requirements=tests/clients/requirements.txt
summary="$CARGO_TARGET_DIR/clients-summary"

missing=()
command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
for name in s3cmd rclone restic; do command -v "$name" >/dev/null || missing+=("$name"); done
if [ ${#missing[@]} -gt 0 ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing for the clients' tests: ${missing[*]}"
    if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1; then
        echo "warning: could not install ${missing[*]}; the tests that need it are skipped" >&2
    fi
fi
if ! cmp -s "$requirements" "$venv/installed"; then
    echo "Installing the clients of $requirements into $venv"
    if ! { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"; } >&2; then
        echo "clients: skipped, the packages of $requirements could not be installed" | tee "$summary"
        rm -rf "$venv"
        exit 0
    fi
    cp "$requirements" "$venv/installed"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$venv/bin/pytest" -q -rfEs --tb=short -p no:cacheprovider tests/clients "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
echo "clients: $(tail -1 "$log" | sed 's/=//g; s/^ *//')" | tee "$summary"
exit "$status"
