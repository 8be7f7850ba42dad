//! The directory source: what comes out when files come, change, break and go.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf};

use mesh_controller::{
    problems::Problems,
    source::{Event, dir::Dir},
};
use mesh_runtime::tasks::Tasks;
use tokio::sync::mpsc;

use crate::support::DEADLINE;

struct Watched {
    root: PathBuf,
    events: mpsc::Receiver<Event>,
    problems: Problems,
    tasks: Tasks,
    _directory: tempfile::TempDir,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Watched {
    fn start(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, problems, tasks) = (directory.path().to_owned(), Problems::default(), Tasks::new());
        for (name, text) in files {
            fs::write(root.join(name), text).unwrap();
        }
        let dir = Dir::open(&root, problems.clone()).unwrap();
        // One event at a time: the source waits for us, so that nothing is on its way unseen.
        let (send, events) = mpsc::channel(1);
        let cancelled = tasks.cancelled();
        tasks.spawn("dir", async move {
            tokio::select! {
                () = dir.run(send) => {}
                () = cancelled => {}
            }
        });
        Self { root, events, problems, tasks, _directory: directory }
    }

    fn replace(&self, name: &str, text: &str) {
        fs::write(self.root.join(".draft"), text).unwrap();
        fs::rename(self.root.join(".draft"), self.root.join(name)).unwrap();
    }

    async fn next(&mut self) -> String {
        let event = tokio::time::timeout(DEADLINE, self.events.recv()).await.expect("an event in time");
        match event.unwrap() {
            Event::Apply(object) => format!("apply {}", object.object_ref()),
            Event::Delete(object) => format!("delete {object}"),
            Event::Synced => "synced".into(),
        }
    }

    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next().await, *expected);
        }
    }

    /// Says that everything before has been seen: an object that comes and goes.
    async fn settled(&mut self) {
        self.replace("zz-settled.yaml", &namespace("zz-settled"));
        self.expect(&["apply Namespace zz-settled"]).await;
        fs::remove_file(self.root.join("zz-settled.yaml")).unwrap();
        self.expect(&["delete Namespace zz-settled"]).await;
    }

    /// What is wrong, with paths below the root.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.root.display());
        let all: BTreeMap<_, _> = self.problems.list();
        all.into_values().flatten().map(|text| text.replace(&root, "")).collect()
    }
}

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn service(name: &str, port: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  ports:\n  - port: {port}\n"
    )
}

#[tokio::test]
async fn what_is_there_comes_before_synced_and_kinds_of_others_do_not_come() {
    let others = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n# nothing\n---\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n";
    let json = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#;
    let mut watched = Watched::start(&[
        ("1.yaml", &(namespace("a") + others)),
        ("2.yml", list),
        ("3.json", json),
        ("notes.txt", &namespace("no")),
        (".hidden.yaml", &namespace("no")),
    ]);
    watched.expect(&["apply Namespace a", "apply Namespace b", "apply Namespace c", "synced"]).await;
    assert_eq!(watched.problems(), [""; 0]);
}

#[tokio::test]
async fn a_malformed_document_is_named_by_file_line_and_reason_and_leaves_the_others_alone() {
    let mut watched = Watched::start(&[("a.yaml", &service("web", "80")), ("b.yaml", &namespace("b"))]);
    watched.expect(&["apply Namespace b", "apply Service shop/web", "synced"]).await;
    watched.replace("a.yaml", &(namespace("a") + &service("web", "eighty") + &service("late", "80")));
    // The Service keeps what it was; what stands beside the mistake is in force.
    watched.expect(&["apply Namespace a", "apply Service shop/late"]).await;
    let problems = watched.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (place, reason) = problems[0].split_at("a.yaml:13: Service shop/web: ".len());
    assert_eq!(place, "a.yaml:13: Service shop/web: ");
    assert!(reason.contains("eighty") || reason.contains("i32"), "{reason}");
    watched.replace("a.yaml", &service("web", "81"));
    watched.expect(&["delete Namespace a", "delete Service shop/late", "apply Service shop/web"]).await;
    assert_eq!(watched.problems(), [""; 0]);
}

#[tokio::test]
async fn each_mistake_has_its_line_and_its_reason() {
    for (text, expected) in [
        ("a: [\n", "f.yaml:"),
        ("---\nkind: Pod\n", "f.yaml:1: no apiVersion or no kind: not a Kubernetes object"),
        ("apiVersion: v1\nkind: Service\n", "f.yaml:1: Service without metadata.name"),
        (
            "apiVersion: meshctl.dev/v1alpha1\nkind: AuthorisationPolicy\nmetadata: {name: a}\n",
            "f.yaml:1: AuthorisationPolicy is not a kind of meshctl.dev/v1alpha1",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {name: a}\n",
            "f.yaml:1: HTTPRoute is read in version v1, not \"v1beta1\"",
        ),
        (
            "\n\n---\napiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  form: []\n",
            "f.yaml:8: AuthorizationPolicy default/a: spec.form: unknown field `form`",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n  - backendRefs:\n    - name: web\n      weight: heavy\n",
            "f.yaml:8: HTTPRoute default/a: spec.rules[0].backendRefs[0].weight: invalid type: string \"heavy\", expected i32",
        ),
        ("apiVersion: v1\nkind: List\nitems:\n- {kind: Pod}\n", "f.yaml:1: items[0]: no apiVersion"),
    ] {
        let mut watched = Watched::start(&[("f.yaml", text)]);
        watched.expect(&["synced"]).await;
        let problems = watched.problems();
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{expected}\n{problems:?}");
    }
}

fn authorization(from: &str) -> String {
    format!(
        "---\napiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec:\n  from:{from}\n"
    )
}

#[tokio::test]
async fn a_policy_that_never_could_be_read_stands_for_nobody_until_it_can() {
    let mut watched = Watched::start(&[("a.yaml", &authorization(" # commented out"))]);
    watched.expect(&["apply AuthorizationPolicy shop/a", "synced"]).await;
    let reason = "`from` has no value: name clients below it, or leave the field out for everyone";
    let expected = format!("a.yaml:6: AuthorizationPolicy shop/a: {reason}; until it can be read it lets nobody in");
    assert_eq!(watched.problems(), [expected]);
    watched.replace("a.yaml", &authorization(" [{serviceAccounts: [web]}]"));
    watched.expect(&["apply AuthorizationPolicy shop/a"]).await;
    assert_eq!(watched.problems(), [""; 0]);
    watched.replace("a.yaml", &authorization(" []"));
    watched.settled().await;
    let problems = watched.problems();
    assert!(problems.len() == 1 && problems[0].ends_with("; the version before stays in force"), "{problems:?}");
    // A good version somewhere else wins over a stand-in.
    watched.replace("b.yaml", &authorization(" [{serviceAccounts: [web]}]"));
    watched.replace("0.yaml", &authorization(" []"));
    watched.settled().await;
    fs::remove_file(watched.root.join("a.yaml")).unwrap();
    watched.settled().await;
    fs::remove_file(watched.root.join("b.yaml")).unwrap();
    watched.expect(&["apply AuthorizationPolicy shop/a"]).await;
    fs::remove_file(watched.root.join("0.yaml")).unwrap();
    watched.expect(&["delete AuthorizationPolicy shop/a"]).await;
}

#[tokio::test]
async fn a_policy_whose_target_cannot_be_read_is_reported_as_not_in_force() {
    let text = authorization(" []").replace("  from: []", "  selector:\n  from: []");
    let mut watched = Watched::start(&[("a.yaml", &text)]);
    watched.expect(&["synced"]).await;
    let problems = watched.problems();
    let expected = "; what it protects cannot be read, so it protects nothing";
    assert!(
        problems.len() == 1 && problems[0].starts_with("a.yaml:6: ") && problems[0].ends_with(expected),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_as_a_whole_keeps_what_it_said() {
    let mut watched = Watched::start(&[("a.yaml", &(namespace("a") + &service("web", "80")))]);
    watched.expect(&["apply Namespace a", "apply Service shop/web", "synced"]).await;
    watched.replace("a.yaml", "{{{ broken");
    watched.settled().await;
    assert_eq!(watched.problems().len(), 1);
    fs::remove_file(watched.root.join("a.yaml")).unwrap();
    watched.expect(&["delete Namespace a", "delete Service shop/web"]).await;
    assert_eq!(watched.problems(), [""; 0]);
}

#[tokio::test]
async fn a_renamed_file_changes_nothing() {
    let mut watched = Watched::start(&[("a.yaml", &namespace("a"))]);
    watched.expect(&["apply Namespace a", "synced"]).await;
    fs::rename(watched.root.join("a.yaml"), watched.root.join("b.yaml")).unwrap();
    watched.settled().await;
    fs::remove_file(watched.root.join("b.yaml")).unwrap();
    watched.expect(&["delete Namespace a"]).await;
}

#[tokio::test]
async fn a_file_written_in_place_or_replaced_in_one_step_is_read_again() {
    let mut watched = Watched::start(&[("a.yaml", &service("web", "80"))]);
    watched.expect(&["apply Service shop/web", "synced"]).await;
    watched.replace("a.yaml", &service("web", "81"));
    watched.expect(&["apply Service shop/web"]).await;
    // The same size, and perhaps the same time of change.
    fs::write(watched.root.join("a.yaml"), service("web", "82")).unwrap();
    watched.expect(&["apply Service shop/web"]).await;
    // Written again as it is: no change.
    watched.replace("a.yaml", &service("web", "82"));
    watched.settled().await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_read_when_it_is_closed() {
    let (a, b) = (namespace("a"), namespace("b"));
    let mut watched = Watched::start(&[("f.yaml", &(a.clone() + &b))]);
    watched.expect(&["apply Namespace a", "apply Namespace b", "synced"]).await;
    let mut file = fs::File::create(watched.root.join("f.yaml")).unwrap();
    file.write_all(a.as_bytes()).unwrap();
    // The directory is read twice meanwhile, and the file ends where a document ends.
    watched.settled().await;
    file.write_all(b.as_bytes()).unwrap();
    drop(file);
    watched.settled().await;
    let mut file = fs::File::create(watched.root.join("f.yaml")).unwrap();
    file.write_all(b.as_bytes()).unwrap();
    // Never closed: read when it has been quiet for long.
    watched.expect(&["delete Namespace a"]).await;
    drop(file);
    watched.settled().await;
}

#[tokio::test]
async fn directories_below_are_watched_too() {
    let mut watched = Watched::start(&[]);
    watched.expect(&["synced"]).await;
    fs::create_dir_all(watched.root.join("team/app")).unwrap();
    fs::write(watched.root.join("team/app/a.yaml"), namespace("a")).unwrap();
    watched.expect(&["apply Namespace a"]).await;
    fs::remove_dir_all(watched.root.join("team")).unwrap();
    watched.expect(&["delete Namespace a"]).await;
}

#[tokio::test]
async fn an_object_in_two_files_is_taken_from_the_first_by_path() {
    let mut watched = Watched::start(&[("b.yaml", &service("web", "80"))]);
    watched.expect(&["apply Service shop/web", "synced"]).await;
    watched.replace("a.yaml", &service("web", "81"));
    watched.expect(&["apply Service shop/web"]).await;
    watched.replace("b.yaml", &service("web", "82"));
    watched.settled().await;
    assert_eq!(watched.problems(), ["b.yaml: Service shop/web is in an earlier file too; that one is in force"]);
    fs::remove_file(watched.root.join("a.yaml")).unwrap();
    watched.expect(&["apply Service shop/web"]).await;
}

#[tokio::test]
async fn a_directory_that_vanishes_as_a_whole_leaves_everything_in_force() {
    let mut watched = Watched::start(&[("a.yaml", &namespace("a"))]);
    watched.expect(&["apply Namespace a", "synced"]).await;
    let away = watched.root.with_extension("away");
    fs::rename(&watched.root, &away).unwrap();
    let problems = watched.problems.clone();
    let noticed = async {
        while problems.count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, noticed).await.expect("the loss is reported");
    fs::rename(&away, &watched.root).unwrap();
    watched.settled().await;
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Dir::open("/nonexistent/manifests", Problems::default()).err().unwrap().to_string();
    assert!(error.starts_with("read the directory /nonexistent/manifests: "), "{error}");
}
