//! The two ways to build an image come to the same: what `deploy/images/Dockerfile` says, and what `deploy/images/build.sh`
//! and `oci-archive.sh` make, which needs no container runtime. What an image does on a cluster is not known here.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use mesh_e2e::sources::root;
use serde_json::{Value, json};

/// The last stages of the Dockerfile, by name: their instructions in order, but for `FROM`.
fn stages() -> BTreeMap<String, Vec<(String, String)>> {
    let text = read("deploy/images/Dockerfile").replace("\\\n", " ");
    let mut stages: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').expect("an instruction and what it is about");
        if instruction == "FROM" {
            let (from, name) = rest.split_once(" AS ").expect("every stage has a name");
            assert!(from == "scratch" || name == "build", "{name} is not from scratch but from {from}");
            name.clone_into(&mut current);
        }
        let stage = stages.entry(current.clone()).or_default();
        if instruction != "FROM" {
            stage.push((instruction.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    stages
}

/// Name and user id of each image of `build.sh`.
fn built() -> BTreeMap<String, u32> {
    let script = read("deploy/images/build.sh");
    let list =
        script.lines().find_map(|line| line.strip_prefix("images=(")?.strip_suffix(')')).expect("a list of images");
    let image = |word: &str| {
        let (name, uid) = word.split_once(':').expect("NAME:UID");
        (name.to_owned(), uid.parse().expect("a number"))
    };
    list.split(' ').map(image).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_dockerfile_has_the_images_of_the_script_with_the_same_user_environment_and_entry_point() {
    let (mut stages, built) = (stages(), built());
    let build = stages.remove("build").expect("a stage that compiles");
    assert_eq!(stages.keys().collect::<Vec<_>>(), built.keys().collect::<Vec<_>>());
    for (name, uid) in &built {
        let archive = Archive::of(name, *uid);
        let config = &archive.config;
        assert_eq!(config["config"]["WorkingDir"], "/", "as where none is said");
        let entry: Vec<&str> =
            config["config"]["Entrypoint"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let environment: Vec<&str> =
            config["config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let [variable] = environment[..] else { panic!("{environment:?}") };
        let expected = [
            ("COPY", format!("--from=build /out/{name}/ /")),
            ("ENV", variable.to_owned()),
            ("USER", config["config"]["User"].as_str().expect("a user").to_owned()),
            ("ENTRYPOINT", json!(entry).to_string()),
        ];
        let expected = expected.map(|(instruction, rest)| (instruction.to_owned(), rest));
        assert_eq!(stages[name], expected, "{name}: deploy/images/Dockerfile, and oci-archive.sh beside it");
        // The root that the compiling stage puts together is the archive's.
        assert_eq!(archive.files, [(format!("./{name}"), 0o755), ("./tmp".to_owned(), 0o1777)].into(), "{name}");
        let run = build.iter().map(|(_, rest)| rest.as_str()).find(|rest| rest.contains("install -D -m 0755"));
        let run = run.expect("a step that puts the roots together");
        assert!(run.split([' ', ';']).any(|word| word == name), "{name} is not in: {run}");
        assert!(
            run.contains("/out/$program/$program ") && run.contains("install -d -m 1777 /out/$program/tmp"),
            "{run}"
        );
    }
}

#[test]
fn both_compile_the_same_programs_with_the_same_options() {
    let script = read("deploy/images/build.sh");
    let stages = stages();
    let compiles = stages["build"].iter().find(|(_, rest)| rest.contains("cargo build")).expect("cargo build");
    let profile =
        script.lines().find_map(|line| line.strip_prefix("profile=${MESH_IMAGE_PROFILE:-")?.strip_suffix('}'));
    let profile = profile.expect("a profile where none is said");
    for option in ["--locked", "--target", "--bins", "-C target-feature=+crt-static", "MESH_COMMIT="] {
        assert!(script.contains(option) && compiles.1.contains(option), "{option}");
    }
    assert!(compiles.1.contains(&format!("--profile {profile} ")), "{}", compiles.1);
    for name in built().keys() {
        assert!(compiles.1.contains(&format!("--package {name} ")), "{name}: {}", compiles.1);
    }
    let pinned = read("rust-toolchain.toml");
    let pinned = pinned.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let image = read("deploy/images/Dockerfile");
    let image = image.lines().find_map(|line| line.strip_prefix("FROM rust:")?.split_once('-')).expect("a compiler");
    let pinned = pinned.expect("a pinned compiler");
    assert!(pinned == image.0 || pinned.starts_with(&format!("{}.", image.0)), "{pinned} and {}", image.0);
}

#[test]
fn an_image_runs_as_the_user_that_its_pod_says() {
    let built = built();
    assert_eq!(built["mesh-proxy"], mesh_proto::names::PROXY_UID);
    let manifest = read("deploy/control-plane.yaml");
    for deployment in manifest.split("\n---\n").filter(|document| document.contains("\nkind: Deployment\n")) {
        let word = |key: &str| {
            let line = deployment.lines().find_map(|line| line.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key} in {deployment}")).trim().to_owned()
        };
        assert_eq!(word("runAsUser:"), built[&word("name:")].to_string());
    }
}

/// What `oci-archive.sh` makes of a program.
struct Archive {
    config: Value,
    /// Mode of each file and folder below the root.
    files: BTreeMap<String, u32>,
}

impl Archive {
    fn of(name: &str, uid: u32) -> Self {
        let work = tempfile::tempdir().expect("a folder");
        let at = |name: &str| work.path().join(name);
        fs::write(at(name), "a program").expect("a file");
        run(Command::new(root().join("deploy/images/oci-archive.sh"))
            .arg(format!("docker.io/library/{name}:0"))
            .arg(at(name))
            .arg(uid.to_string())
            .arg(at("image.tar")));
        let oci = unpack(&at("image.tar"), at("oci"));
        let blob = |digest: &Value| oci.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"));
        let json = |path: PathBuf| -> Value {
            serde_json::from_slice(&fs::read(&path).expect("a file"))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let index = json(oci.join("index.json"));
        let manifest = json(blob(&index["manifests"][0]["digest"]));
        let config = json(blob(&manifest["config"]["digest"]));
        let layers = manifest["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 1, "one, as one COPY makes");
        let files = unpack(&blob(&layers[0]["digest"]), at("root"));
        let mode = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.expect("a readable folder");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o7777;
            (format!("./{}", entry.file_name().to_string_lossy()), mode)
        };
        Self { config, files: fs::read_dir(files).expect("a folder").map(mode).collect() }
    }
}

fn unpack(archive: &Path, into: PathBuf) -> PathBuf {
    fs::create_dir(&into).expect("a new folder");
    run(Command::new("tar")
        .arg("--extract")
        .arg("--preserve-permissions")
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(&into));
    into
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
