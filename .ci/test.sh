#!/usr/bin/env bash
# Every test of the workspace, ending with the runner's own lines and one sum of them.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
sum() { grep -E '^test result:' "$log" | sed -E "s/.* ([0-9]+) $1.*/\1/" | awk '{n += $1} END {print n + 0}'; }
failed=$(sum failed)
grep -E '^(test .* FAILED|---- .* stdout ----)' "$log" | head -50
echo "meridian: $(sum passed) passed, $failed failed" | tee "$CARGO_TARGET_DIR/test-summary"
exit "$status"
