//! Generates the gRPC code from `proto/*.proto` with protox, a compiler in Rust, so that no `protoc` is needed.
//! The generated code lies in OUT_DIR and is never committed. Every `bytes` field becomes a `bytes::Bytes`, so
//! that log entries and raft messages are slices of the received buffer and not copies of it.

use std::error::Error;

const PROTO_FILES: [&str; 3] = ["common.proto", "raft.proto", "replication.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTO_FILES, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::CheckedCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
