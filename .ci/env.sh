# Sourced by the Makefile and .ci/run: where builds go, and the RocksDB archive that all profiles share.
# Everything lives in one cache folder outside the clone, so that a fresh clone builds warm.
# A Rust that rustup has just installed is not yet on the PATH of the shell that asked for it.
command -v cargo >/dev/null || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
export MERIDIAN_CACHE="${MERIDIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meridian}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$MERIDIAN_CACHE/target}"
rocksdb_version=$(sed -n '/^name = "librocksdb-sys"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
rocksdb_archive="$MERIDIAN_CACHE/rocksdb/$rocksdb_version-lz4-zstd-$(uname -m)"
case "$(uname -m)" in
    x86_64) rocksdb_cxxflags="-msse4.2 -mpclmul" ;; # RocksDB's CRC32C by instruction, as in x86-64-v2
    *) rocksdb_cxxflags="" ;;
esac

# Compiles RocksDB once for all cargo profiles and keeps its archive; later builds link it in seconds.
build_rocksdb_archive() {
    [ -f "$rocksdb_archive/librocksdb.a" ] && return 0
    echo "Compiling RocksDB once (about 12 minutes on 2 cores, kept in $rocksdb_archive) ..."
    local build="$MERIDIAN_CACHE/rocksdb-build"
    CXXFLAGS="$rocksdb_cxxflags ${CXXFLAGS:-}" CARGO_TARGET_DIR="$build" CARGO_PROFILE_RELEASE_DEBUG=none \
        cargo build --locked --release -p meridian-store || return 1
    mkdir -p "$rocksdb_archive"
    cp "$(find "$build/release/build" -path '*librocksdb-sys*' -name librocksdb.a | head -1)" "$rocksdb_archive/.partial" &&
        mv "$rocksdb_archive/.partial" "$rocksdb_archive/librocksdb.a" && rm -rf "$build"
}

use_rocksdb_archive() {
    [ -f "$rocksdb_archive/librocksdb.a" ] || return 0
    export ROCKSDB_LIB_DIR="$rocksdb_archive" ROCKSDB_STATIC=1
}
