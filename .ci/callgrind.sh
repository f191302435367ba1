#!/usr/bin/env bash
# Counts the instructions of the hot paths' kernels under callgrind and compares them with .ci/callgrind.baseline:
#   bash .ci/callgrind.sh            fails when a kernel takes over TOLERANCE_PERCENT more than it did
#   bash .ci/callgrind.sh --record   writes the baseline anew: for a commit that says why
# A run of N and one of 2 N are subtracted, so that neither start nor set-up counts. Instruction counts move by under one per
# cent from run to run (hash seeds), whatever else the machine does; with another compiler, processor or profile they
# must be recorded anew. Skipped with a word where valgrind is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env.sh
use_rocksdb_archive
tolerance=${TOLERANCE_PERCENT:-5}
baseline=.ci/callgrind.baseline
if ! command -v valgrind >/dev/null; then
    echo "callgrind: skipped, valgrind is not installed" >&2
    exit 0
fi
kernels=${KERNELS_BIN:-}
if [ -z "$kernels" ]; then
    # The whole workspace is selected, so that dependencies keep the features that they were built with.
    cargo build --locked --workspace --example kernels
    kernels="$CARGO_TARGET_DIR/debug/examples/kernels"
fi
made_by="$(rustc --version), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
count() {
    local out
    out=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$kernels" "$1" "$2" 2>&1) ||
        { echo "callgrind: $1 failed: $out" >&2; return 1; }
    sed -n 's/.*Collected : *\([0-9]*\).*/\1/p' <<<"$out"
}
measure() {
    local kernel=$1 n=200 once twice
    [ "$kernel" != index-list-page ] || n=5
    once=$(count "$kernel" "$n") && twice=$(count "$kernel" $((2 * n))) || return 1
    echo "$kernel $(((twice - once) / n))"
}
export -f count measure
export kernels
measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
echo "# Instructions of one run of each kernel, dev profile, $made_by. Written by .ci/callgrind.sh --record." >"$measured"
"$kernels" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'measure {}' | sort >>"$measured"
if [ "${1:-}" = --record ]; then
    cp "$measured" "$baseline"
    cat "$baseline"
    exit 0
fi
judged=1
if ! grep -qF "$made_by" "$baseline"; then
    # Hashes choose their code by the processor, compilers theirs by themselves.
    echo "callgrind: the baseline is of another compiler or processor, so that differences are told and not judged" >&2
    judged=0
fi
failed=0
while read -r kernel now; do
    [ "$kernel" != "#" ] || continue
    before=$(awk -v kernel="$kernel" '$1 == kernel { print $2 }' "$baseline")
    if [ -z "$before" ]; then
        echo "callgrind: $kernel has no baseline; record it" >&2
        failed=1
        continue
    fi
    change=$(awk -v now="$now" -v before="$before" 'BEGIN { printf "%+.1f", (now / before - 1) * 100 }')
    verdict=ok
    if awk -v change="$change" -v tolerance="$tolerance" 'BEGIN { exit !(change > tolerance) }'; then
        verdict="MORE than $tolerance % over its baseline"
        failed=1
    fi
    printf '%-18s %10d  was %10d  %6s %%  %s\n' "$kernel" "$now" "$before" "$change" "$verdict"
done <"$measured"
exit $((failed * judged))
