//! What fuzz targets have in common.

pub mod both;
pub mod inbound;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_controller::ca::store::Store;
use serde_json::Value;

/// A directory of this process.
pub fn scratch(name: &str) -> Store {
    let path = std::env::temp_dir().join(format!("mesh-fuzz-{}-{name}", std::process::id()));
    Store::open(path).expect("the temporary directory is writable")
}

/// The patch in an admission response, if it has one.
pub fn patch_of(response: &Value) -> Option<json_patch::Patch> {
    let patch = STANDARD.decode(response.get("patch")?.as_str()?).expect("it is base64");
    Some(serde_json::from_slice(&patch).expect("it is a patch"))
}
