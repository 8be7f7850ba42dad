//! Admission reviews: every body is answered or refused, and the patch of an answer makes the pod one that has the sidecar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_injector::{
    decide::{NamespaceMeta, is_injected},
    review::{Review, answer},
    sidecar::Mesh,
};

fuzz_target!(|data: &[u8]| {
    let Ok(review) = Review::parse(data) else { return };
    let answer = answer(&review, NamespaceMeta::default().opted_in(), &Mesh::default());
    let response = &answer.body["response"];
    assert_eq!(response["uid"], review.uid.as_str());
    assert_eq!(response["allowed"], true);
    if let Some(patch) = mesh_fuzz::patch_of(response) {
        let mut pod = review.object.clone();
        json_patch::patch(&mut pod, &patch.0).expect("the patch fits the pod it is for");
        assert!(is_injected(&pod), "{pod}");
    }
});
