#!/usr/bin/env bash
# Licences, bans and sources by cargo-deny, which is installed once into the cache folder.
set -euo pipefail
tools="$MERIDIAN_CACHE/tools"
if ! [ -x "$tools/bin/cargo-deny" ]; then
    echo "Installing cargo-deny once (about 4 minutes on 2 cores) ..."
    CARGO_TARGET_DIR="$MERIDIAN_CACHE/tools-build" cargo install --quiet --locked --root "$tools" cargo-deny
    rm -rf "$MERIDIAN_CACHE/tools-build"
fi
"$tools/bin/cargo-deny" --log-level error check --hide-inclusion-graph licenses bans sources
