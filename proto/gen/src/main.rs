//! Regenerates `proto/src/wire/generated` from `proto/mesh/v1/*.proto`. Run by `just gen`; needs `protoc`.
//!
//! A crate of its own, so that it builds when the generated code does not.

fn main() -> std::io::Result<()> {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let out = root.join("src/wire/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure().out_dir(&out).bytes(".").compile_protos(
        &["identity", "config", "tap"].map(|name| root.join(format!("mesh/v1/{name}.proto"))),
        &[root.to_path_buf()],
    )
}
