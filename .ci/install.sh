#!/usr/bin/env bash
# Installs what a build needs and the machine lacks: a C++ compiler, libclang (RocksDB's bindings), Rust.
set -euo pipefail
rust_needed=1.95

missing=()
command -v c++ >/dev/null && command -v make >/dev/null || missing+=(build-essential)
ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 && ls -d /usr/lib/llvm-*/lib/clang/*/include >/dev/null 2>&1 ||
    missing+=(libclang-dev)
command -v curl >/dev/null || missing+=(curl)

rust_is_recent() {
    command -v cargo >/dev/null || return 1
    local have
    have=$(rustc --version | awk '{print $2}')
    [ "$(printf '%s\n%s\n' "$rust_needed" "$have" | sort -V | head -1)" = "$rust_needed" ]
}
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
rust_is_recent || command -v rustup >/dev/null || missing+=(rustup)

if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing: ${missing[*]}"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    if ! $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
        echo "error: could not install ${missing[*]}. Install a C++ compiler, libclang and Rust $rust_needed or newer (by rustup), then try again." >&2
        exit 2
    fi
fi
if ! rust_is_recent; then
    rustup toolchain install stable --profile minimal -c rustfmt -c clippy
    rustup default stable
    rust_is_recent || { echo "error: Meridian needs Rust $rust_needed or newer; found $(rustc --version)." >&2; exit 2; }
fi
