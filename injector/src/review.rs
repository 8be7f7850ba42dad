//! AdmissionReview (`admission.k8s.io/v1`) in and out.
//!
//! Called by `server` with the bytes of a request and by the playground for each pod it starts. The bytes are foreign:
//! whatever they are, the answer is a value. Has no side effect: who tells the owner what [`Answer::told`] says does not on a
//! dry run.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    decide::{Decision, Namespace, NamespaceMeta, Verdict, decide},
    events::Told,
    patch, pod,
    reason::{Code, Reason},
    sidecar::{self, Mesh},
};

/// The only version of the API we speak; Kubernetes has served it since 1.16.
const API_VERSION: &str = "admission.k8s.io/v1";
/// The API server cuts a warning after this many bytes.
const MAX_WARNING: usize = 256;
/// Most objects, lists and entries that a body may have. Each costs some 300 bytes as a value, though it may be two bytes
/// of JSON; the largest pods of the world have a tenth of it.
pub const MAX_NODES: usize = 50_000;
/// Most warnings of one answer.
const MAX_WARNINGS: usize = 16;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Review {
    /// Given back with the answer.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Whether this is the creation of a pod; anything else is let through.
    pub creates_pod: bool,
    /// Whether nothing comes of it: then nobody is told.
    pub dry_run: bool,
    /// The pod.
    pub object: Value,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body: an AdmissionReview with a response.
    pub body: Value,
    /// `injected`, `skipped` or `refused`: metric label and log field.
    pub result: &'static str,
    /// The reason's stable code; empty when injected.
    pub reason: &'static str,
    /// For the pod's owner, where it has one and there is something to tell.
    pub told: Option<Told>,
}

/// The bytes are no AdmissionReview.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// Not JSON, nested too deeply, or fields of the wrong type.
    #[error("read the body as an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// More than [`MAX_NODES`].
    #[error("the body has more than {MAX_NODES} values; no pod has")]
    TooManyValues,
    /// Another kind or version.
    #[error("the body is {kind:?} of {api_version:?}, not AdmissionReview of {API_VERSION}")]
    OtherKind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// A field is missing.
    #[error("the AdmissionReview has no {0}")]
    Missing(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireReview {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<WireRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRequest {
    #[serde(default)]
    uid: String,
    kind: Option<WireKind>,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct WireNamespace {
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct WireKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

/// The namespace of what a body asks about: all that must be known of it while that is looked up, and a hundredth of the memory.
pub fn namespace(body: &[u8]) -> Result<String, BadReview> {
    #[derive(Deserialize)]
    struct Only {
        request: Option<WireNamespace>,
    }
    let Only { request } = serde_json::from_slice(body)?;
    Ok(request.ok_or(BadReview::Missing("request"))?.namespace)
}

impl Review {
    /// Reads a body. `serde_json` refuses nesting deeper than 128, so no body exhausts the stack.
    pub fn parse(body: &[u8]) -> Result<Self, BadReview> {
        if nodes(body) > MAX_NODES {
            return Err(BadReview::TooManyValues);
        }
        let WireReview { api_version, kind, request } = serde_json::from_slice(body)?;
        if api_version != API_VERSION || kind != "AdmissionReview" {
            let short = |text: String| text.chars().take(64).collect();
            return Err(BadReview::OtherKind { api_version: short(api_version), kind: short(kind) });
        }
        let request = request.ok_or(BadReview::Missing("request"))?;
        let kind = request.kind.ok_or(BadReview::Missing("request.kind"))?;
        if request.uid.is_empty() {
            return Err(BadReview::Missing("request.uid"));
        }
        let is_pod = kind.group.is_empty() && kind.version == "v1" && kind.kind == "Pod";
        let creates_pod = is_pod && request.operation == "CREATE" && request.sub_resource.is_empty();
        if creates_pod && !request.object.is_object() {
            return Err(BadReview::Missing("request.object"));
        }
        Ok(Self {
            uid: request.uid,
            namespace: request.namespace,
            creates_pod,
            dry_run: request.dry_run == Some(true),
            object: request.object,
        })
    }
}

/// How many objects, lists and entries this JSON has, or more; known before anything is made of it.
fn nodes(json: &[u8]) -> usize {
    let (mut nodes, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[' | b',') => nodes += 1,
            _ => {}
        }
    }
    nodes
}

/// Answers a review. `meta` is what the pod's namespace says.
pub fn answer(review: &Review, meta: NamespaceMeta, mesh: &Mesh) -> Answer {
    let namespace = Namespace { name: review.namespace.clone(), meta };
    let Decision { verdict, mut warnings } = if review.creates_pod {
        decide(&review.object, &namespace)
    } else {
        Decision { verdict: Verdict::Skip(Code::NotAPod.into()), warnings: Vec::new() }
    };
    let code = match &verdict {
        Verdict::Inject(_) => None,
        Verdict::Skip(reason) | Verdict::Refuse(reason) => Some(reason.clone()),
    };
    let (result, reason, patch) = match verdict {
        Verdict::Inject(settings) => {
            let injected = sidecar::inject(&review.object, mesh, &settings);
            warnings.extend(injected.warnings);
            ("injected", "", Some(patch::diff(&review.object, &injected.pod)))
        }
        Verdict::Skip(reason) => ("skipped", reason.code(), None),
        Verdict::Refuse(reason) => ("refused", reason.code(), None),
    };
    let mut response = json!({"uid": review.uid, "allowed": true});
    if let Some(patch) = patch {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
    }
    if !warnings.is_empty() {
        response["warnings"] = warnings.iter().take(MAX_WARNINGS).map(|warning| line(warning)).collect();
    }
    // The API server puts its own prefix (the webhook's name) before the key.
    let audit = if reason.is_empty() { result.to_owned() } else { format!("{result}: {reason}") };
    response["auditAnnotations"] = json!({"inject": audit});
    let body = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response});
    let told = if review.creates_pod { told(review, code, &warnings) } else { None };
    Answer { body, result, reason, told }
}

/// What the owner hears. Its controller creates the pod and drops the warnings of the answer, so that they are in here.
fn told(review: &Review, code: Option<Reason>, warnings: &[String]) -> Option<Told> {
    // A second review of one pod, and namespaces nobody expects a sidecar in, are no news.
    if code.as_ref().is_some_and(|reason| matches!(reason.code, Code::AlreadyInjected | Code::SystemNamespace)) {
        return None;
    }
    let regarding = pod::owner(&review.object)?;
    let (reason, said) = match &code {
        None => ("injected", "sidecar added".to_owned()),
        Some(reason) => (reason.code(), format!("no sidecar: {}", reason.text())),
    };
    let more = warnings.iter().filter(|_| code.is_none());
    let note = std::iter::once(&said).chain(more).map(String::as_str).collect::<Vec<_>>().join("; ");
    Some(Told {
        namespace: review.namespace.clone(),
        regarding,
        once: false,
        reason,
        is_warning: !warnings.is_empty(),
        note,
    })
}

/// One line of at most [`MAX_WARNING`] bytes: a warning travels as a header.
fn line(warning: &str) -> String {
    let mut text = String::from("mesh: ");
    for c in warning.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > MAX_WARNING {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(operation: &str, kind: &str, object: Value) -> Vec<u8> {
        let body = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": {
            "uid": "u1", "kind": {"group": "", "version": "v1", "kind": kind}, "namespace": "shop",
            "operation": operation, "object": object, "dryRun": true, "unknownField": [],
        }});
        body.to_string().into_bytes()
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web"}], "newField": {"a": 1}}})
    }

    fn enabled() -> NamespaceMeta {
        let labels = [("meshctl.dev/inject".to_owned(), "enabled".to_owned())].into();
        NamespaceMeta { labels, ..NamespaceMeta::default() }
    }

    #[test]
    fn bytes_that_are_no_review_are_an_error() {
        let deep = format!("{}{}", r#"{"request":"#, "[".repeat(100_000)).into_bytes();
        let deep_object = {
            let text = String::from_utf8(review("CREATE", "Pod", json!("X"))).unwrap();
            text.replace("\"X\"", &format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000))).into_bytes()
        };
        let no_uid = String::from_utf8(review("CREATE", "Pod", pod())).unwrap().replace("u1", "");
        let beta = String::from_utf8(review("CREATE", "Pod", pod())).unwrap().replace("io/v1", "io/v1beta1");
        for body in [
            b"aaaaaa".to_vec(),
            vec![],
            b"{}".to_vec(),
            b"null".to_vec(),
            vec![0xff; 64],
            deep,
            deep_object,
            no_uid.into_bytes(),
            beta.into_bytes(),
            review("CREATE", "Pod", Value::Null),
            br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec(),
        ] {
            assert!(Review::parse(&body).is_err(), "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        }
    }

    #[test]
    fn a_body_of_too_many_values_is_refused_before_it_is_read_and_strings_count_once() {
        for many in ["[],", "{},", "0,", "[[[]]],"] {
            let list = format!("[{}0]", many.repeat(MAX_NODES));
            let body = String::from_utf8(review("CREATE", "Pod", json!("X"))).unwrap().replace("\"X\"", &list);
            assert!(matches!(Review::parse(body.as_bytes()), Err(BadReview::TooManyValues)), "{many}");
        }
        let script = json!({"spec": {"containers": [{"args": ["{[,\\\"".repeat(MAX_NODES)]}]}});
        assert!(Review::parse(&review("CREATE", "Pod", script)).is_ok());
    }

    #[test]
    fn a_review_cut_or_changed_anywhere_never_panics() {
        let whole = review("CREATE", "Pod", pod());
        for index in 0..whole.len() {
            let mut changed = whole.clone();
            for byte in [b'{', b'"', b'0', 0xff] {
                changed[index] = byte;
                if let Ok(review) = Review::parse(&changed) {
                    answer(&review, enabled(), &Mesh::default());
                }
            }
            assert!(Review::parse(&whole[..index]).is_err());
        }
    }

    #[test]
    fn the_patch_of_an_injected_pod_applies() {
        let review = Review::parse(&review("CREATE", "Pod", pod())).unwrap();
        let answer = answer(&review, enabled(), &Mesh::default());
        assert_eq!((answer.result, answer.reason), ("injected", ""));
        let response = &answer.body["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(true)));
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = pod();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched["spec"]["initContainers"][0]["name"], "mesh-proxy");
        assert_eq!(patched["spec"]["newField"], json!({"a": 1}));
    }

    #[test]
    fn whatever_is_not_injected_is_admitted_unchanged() {
        let network = json!({"spec": {"hostNetwork": true, "containers": []}});
        for (body, meta, result, reason) in [
            (review("UPDATE", "Pod", pod()), enabled(), "skipped", "not-a-pod"),
            (review("DELETE", "Pod", Value::Null), enabled(), "skipped", "not-a-pod"),
            (review("CREATE", "Service", pod()), enabled(), "skipped", "not-a-pod"),
            (review("CREATE", "Pod", pod()), NamespaceMeta::default(), "skipped", "not-labelled"),
            (review("CREATE", "Pod", network), enabled(), "skipped", "host-network"),
        ] {
            let answer = answer(&Review::parse(&body).unwrap(), meta, &Mesh::default());
            assert_eq!((answer.result, answer.reason), (result, reason));
            assert_eq!(answer.body["response"]["allowed"], true);
            assert_eq!(answer.body["response"].get("patch"), None);
        }
    }

    #[test]
    fn a_warning_is_one_short_line() {
        let text = line(&format!("a\r\nb{}", "ü".repeat(300)));
        assert!(text.len() <= MAX_WARNING && text.starts_with("mesh: a  bü") && !text.contains('\n'));
    }
}
