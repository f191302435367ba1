#!/usr/bin/env bash
# `make compose-test`: runs the tour of compose/README.md, command by command, and checks what it claims.
#
# It needs a container engine: one that runs is used, else one is started (compose/engine.sh). Where neither can be, it
# says why and counts as skipped. Ports are published on a loopback address of its own, so nothing collides with a cluster
# that runs; containers have fixed names, so the tour itself must not be up at the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
. compose/engine.sh
. compose/image.sh

section_wait_s=240
binary="${1:?usage: compose/test.sh BINARY}"
export MERIDIAN_IMAGE=meridian:test COMPOSE_PROJECT_NAME=meridian-test COMPOSE_INTERACTIVE_NO_CLI=1
MERIDIAN_PUBLISH="127.$((RANDOM % 250 + 2)).$((RANDOM % 250 + 2)).1"
export MERIDIAN_PUBLISH
file=compose/three-datacenters.yml
started=$(date +%s)
elapsed() { echo "$(($(date +%s) - started)) s"; }

skip() {
    echo "compose: SKIPPED, not passed: $1"
    exit 0
}
fail() {
    echo "compose: FAILED after $(elapsed): $1" >&2
    for node in $(docker ps -a --filter name='^dc-[abc]-[0-9]$' --format '{{.Names}}' | sort); do
        echo "-- the last lines of $node:" >&2
        docker logs --tail 15 "$node" 2>&1 | cut -c1-400 >&2 || true
    done
    exit 1
}
clean_up() {
    [ -n "${compose:-}" ] && "${compose[@]}" -f "$file" down -v --remove-orphans >/dev/null 2>&1
    stop_engine
}
trap clean_up EXIT

start_engine || skip "$engine_missing"
find_compose || skip "$engine_missing"
[ -z "$(docker ps -q --filter name='^dc-[abc]-[0-9]$')" ] || skip "containers named dc-a-1 … run already: is the tour up?"
base_image >/dev/null || skip "a Debian base image can neither be pulled nor made"
build_image "$binary"
for each in compose/three-*.yml; do "${compose[@]}" -f "$each" config -q || fail "$each is not accepted"; done

# The shell blocks of the tour, a script for each section. The first lines of section 2 define what the later ones use.
tour=$(mktemp -d)
awk -v to="$tour" '/^## /{section++} /^```sh$/{inside=1; next} /^```$/{inside=0} inside{print > (to "/" section ".sh")}' \
    compose/README.md
sed -n '/^at=/p;/^keys=/s/$/ || true/p;/^s3()/p' "$tour/2.sh" >"$tour/definitions.sh" # section 7 begins without keys
shown="$tour/shown"
run_section() {
    echo "== section $1 of the tour ($(elapsed))"
    local definitions=/dev/null
    [ "$1" -gt 2 ] && definitions="$tour/definitions.sh"
    timeout "$section_wait_s" bash -euo pipefail -c '. "$1"; . "$2"' tour "$definitions" "$tour/$1.sh" >"$shown" 2>&1 ||
        fail "section $1: $(tail -n 5 "$shown")"
    sed 's/^/   /' "$shown"
}
expect() { grep -q -e "$1" "$shown" || fail "section $2 should have shown: $1"; }
# The seconds that the section printed behind these words are few enough.
within() {
    local seconds
    seconds=$(sed -n "s/.*$2 \([0-9]*\) s.*/\1/p" "$shown")
    [ -n "$seconds" ] && [ "$seconds" -le "$1" ] || fail "section $3: \"$2\" took ${seconds:-?} s, more than $1"
}
count() { grep -c -e "$1" "$shown" || true; }

run_section 1
[ "$(count serves)" = 3 ] || fail "three datacenters should serve"
run_section 2
expect "one write crosses" 2
run_section 3 # each request is made with --fail: one that fails on either side of the cut ends the section
expect "the links to and from dc-a lag" 3
run_section 4
within 10 "healed in" 4
winners=$(grep -E '^dc-[ab] says 20$' "$shown" | sort | uniq -c | awk '{print $1}')
[ "$winners" = 3 ] || fail "three datacenters should show one winner, not: $(grep says "$shown")"
[ "$(count both-)" = 20 ] || fail "twenty concurrent writes should be listed as lost, not $(count both-)"
expect "OK" 4
run_section 5
expect "dc-c sleeps" 5

# Every datacenter lists the same objects with the same content.
. "$tour/definitions.sh"
for dc in dc-a:9000 dc-b:9100 dc-c:9200; do
    url="http://$at:${dc#*:}/tour"
    s3 "${dc%:*}" "$url?list-type=2" >"$tour/${dc%:*}.list" || fail "$dc does not list"
done
cmp "$tour/dc-a.list" "$tour/dc-b.list" && cmp "$tour/dc-a.list" "$tour/dc-c.list" || fail "the datacenters list different objects"
[ "$(grep -o '<Key>' "$tour/dc-a.list" | wc -l)" = 41 ] || fail "41 objects should be there: $(cat "$tour/dc-a.list")"
memory=$(docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' dc-a-1 dc-b-1 dc-c-1)
echo "   memory: $(echo "$memory" | tr '\n' ' ')"
run_section 6
file=compose/three-by-three.yml
run_section 7
within 20 "without dc-a-2 in" 7
[ "$(count '^before [0-9]*$')" = 20 ] || fail "twenty objects should be read without dc-a-2"
[ "$(grep -E '^dc-[ab] says 20$' "$shown" | sort | uniq -c | awk '{print $1}')" = 3 ] ||
    fail "three datacenters of three nodes should show one winner, not: $(grep says "$shown")"
expect "OK" 7
rm -rf "$tour"
echo "compose: passed in $(elapsed)"
