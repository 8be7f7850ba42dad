//! `meshctl inject` and `uninject`: manifests in, manifests out, comments and order kept. No cluster is asked.
//!
//! The edited YAML goes to stdout, what was done with each object to stderr. What cannot be edited safely is an error
//! that names file and line; then nothing is printed.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use mesh_injector::{
    manifest::{self, Edited, ManifestError, Outcome},
    sidecar::Mesh,
};

use crate::{
    cli,
    failure::{Exit, Failure},
    printer::Printer,
};

/// Longest manifest that is read; the largest charts render to a tenth of it.
const INPUT_LIMIT: u64 = 64 << 20;

/// What is edited in a directory.
const FORMS: &[&str] = &["yaml", "yml"];

/// A manifest, and its name in errors.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) text: String,
}

pub(crate) fn inject(args: &cli::Inject, printer: &Printer) -> Result<(), Failure> {
    let mesh = Mesh::default();
    let edited = edit(&args.path, |input| manifest::inject(&input.name, &input.text, &mesh))?;
    report(&edited, printer);
    if args.check {
        let change = edited.iter().flat_map(|edited| &edited.report).filter(|one| one.outcome == Outcome::Injected);
        return match change.count() {
            0 => Ok(()),
            count => Err(Failure::new(Exit::Bad, format!("{count} objects have no sidecar"))
                .fix("meshctl inject FILE | kubectl apply -f -")),
        };
    }
    print(&edited, printer)
}

pub(crate) fn uninject(args: &cli::Uninject, printer: &Printer) -> Result<(), Failure> {
    let edited = edit(&args.path, |input| manifest::uninject(&input.name, &input.text))?;
    report(&edited, printer);
    print(&edited, printer)
}

fn edit(path: &Path, edit: impl Fn(&Input) -> Result<Edited, ManifestError>) -> Result<Vec<Edited>, Failure> {
    let edited = inputs(path, FORMS)?.iter().map(edit).collect::<Result<_, _>>();
    edited.map_err(|error| {
        let text = format!("{}:{}: {}", error.file, error.line, error.problem);
        Failure::new(Exit::Bad, text).fix(error.fix)
    })
}

fn report(edited: &[Edited], printer: &Printer) {
    for one in edited.iter().flat_map(|edited| &edited.report) {
        printer.say(one.to_string());
        for warning in &one.warnings {
            printer.say(format!("  warning: {warning}"));
        }
    }
    if edited.iter().all(|edited| edited.report.is_empty()) {
        printer.say("no pod and no pod template in there: nothing to do");
    }
}

/// Several files become one stream of documents; one file comes out byte for byte as it was but for the edits.
fn print(edited: &[Edited], printer: &Printer) -> Result<(), Failure> {
    for (index, one) in edited.iter().enumerate() {
        if index > 0 && !one.text.starts_with("---") {
            printer.data("---\n")?;
        }
        printer.data(&one.text)?;
        if edited.len() > 1 && !one.text.ends_with('\n') {
            printer.data("\n")?;
        }
    }
    Ok(())
}

/// The manifests of a file, a directory (its files of these forms) or standard input.
pub(crate) fn inputs(path: &Path, forms: &[&str]) -> Result<Vec<Input>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(vec![Input {
            name: "standard input".to_owned(),
            text: read(io::stdin().lock(), "standard input")?,
        }]);
    }
    let name = path.display().to_string();
    let failed = |error: io::Error| {
        Failure::new(Exit::NotFound, format!("read {name}: {error}"))
            .fix("name a file or a directory of manifests; - reads standard input")
    };
    let mut files = Vec::new();
    if fs::metadata(path).map_err(failed)?.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| forms.iter().any(|form| extension == *form)) {
                files.push(file);
            }
        }
        // As kubectl applies them.
        files.sort();
        if files.is_empty() {
            let what = forms.iter().map(|form| format!(".{form}")).collect::<Vec<_>>().join(" or ");
            return Err(Failure::new(Exit::NotFound, format!("there is no {what} file in {name}"))
                .fix("directories below it are not looked into: name them"));
        }
    } else {
        files.push(PathBuf::from(path));
    }
    let input = |file: &PathBuf| {
        let name = file.display().to_string();
        let opened =
            fs::File::open(file).map_err(|error| Failure::new(Exit::NotFound, format!("read {name}: {error}")))?;
        Ok(Input { text: read(opened, &name)?, name })
    };
    files.iter().map(input).collect()
}

fn read(source: impl io::Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let failed = |reason: String| Failure::new(Exit::Bad, format!("read {name}: {reason}"));
    let size = source.take(INPUT_LIMIT + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if size as u64 > INPUT_LIMIT {
        return Err(failed(format!("it is longer than {} MiB", INPUT_LIMIT >> 20)));
    }
    Ok(text)
}
