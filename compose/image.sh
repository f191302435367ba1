#!/usr/bin/env bash
# Packs a binary that is already built into the image `meridian`: image.sh BINARY. Sourced, it gives `build_image`.
# The Debian base is pulled, or where no registry can be reached made from Debian's own packages.
set -euo pipefail

pull_wait_s=60
debian_release=bookworm
debian_base="debian:$debian_release-slim"
local_base="meridian-base:$debian_release"

# The name of a Debian image that is there.
base_image() {
    local name
    for name in "$debian_base" "$local_base"; do
        docker image inspect "$name" >/dev/null 2>&1 && { echo "$name"; return 0; }
    done
    timeout "$pull_wait_s" docker pull -q "$debian_base" >/dev/null 2>&1 && { echo "$debian_base"; return 0; }
    echo "No registry can be reached: making a Debian image with debootstrap (about a minute)" >&2
    command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null 2>&1
    local root
    root=$(mktemp -d)
    debootstrap --variant=minbase "$debian_release" "$root" >"$root.log" 2>&1 ||
        { echo "error: debootstrap failed: $(tail -n 1 "$root.log")" >&2; rm -rf "$root"; return 1; }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
    tar -C "$root" -c . | docker import - "$local_base" >/dev/null
    rm -rf "$root" "$root.log"
    echo "$local_base"
}

build_image() {
    local binary=$1 base context
    base=$(base_image)
    context=$(mktemp -d)
    strip -o "$context/meridian" "$binary"
    chmod 0755 "$context/meridian"
    # The classic builder: it is in every engine, and needs no plugin of the client.
    DOCKER_BUILDKIT=0 docker build -q --target prebuilt --build-arg PREBUILT=meridian --build-arg RUNTIME_BASE="$base" \
        -t "${MERIDIAN_IMAGE:-meridian}" -f compose/Dockerfile "$context" >/dev/null
    rm -rf "$context"
    docker image inspect "${MERIDIAN_IMAGE:-meridian}" --format 'image {{.Id}}: {{.Size}} bytes'
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    cd "$(dirname "$0")/.."
    docker info >/dev/null 2>&1 || { echo "error: no container engine answers; start Docker and try again" >&2; exit 1; }
    build_image "${1:?usage: compose/image.sh BINARY}"
fi
