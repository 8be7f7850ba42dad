//! Regenerates the code of `proto/mesh/v1/*.proto` and of the demo shop's `e2e/shop/proto`. Run by `just gen`; needs `protoc`.
//!
//! A crate of its own, so that it builds when the generated code does not.

fn main() -> std::io::Result<()> {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let out = root.join("src/wire/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure().out_dir(&out).bytes(".").compile_protos(
        &["identity", "config", "tap"].map(|name| root.join(format!("mesh/v1/{name}.proto"))),
        &[root.to_path_buf()],
    )?;
    let shop = root.join("../e2e/shop");
    let out = shop.join("src/prices/generated");
    std::fs::create_dir_all(&out)?;
    let protos = shop.join("proto");
    let files = ["shop/v1/prices.proto", "grpc/health/v1/health.proto"].map(|name| protos.join(name));
    tonic_prost_build::configure().out_dir(&out).compile_protos(&files, &[protos])
}
