#!/usr/bin/env bash
# Runs a cargo build with a bar and an estimate when much has to be compiled and a person is watching.
set -euo pipefail
total=$(grep -c '^name = ' Cargo.lock)
if [ ! -t 2 ]; then
    exec "$@"
fi
[ -d "$CARGO_TARGET_DIR/debug/deps" ] ||
    echo "First build: about $total crates, 8 to 12 minutes on 2 cores; later ones take seconds." >&2
CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=${COLUMNS:-100} exec "$@"
