//! `meshctl check`: asks, judges, shows, and ends with the exit code that the result deserves.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    check::{
        Outcome,
        judge::{self, Extent},
        lint::lint,
        observe::Observed,
        pre,
        report::{self, Summary},
    },
    cli::{self, FailOn, Globals, Output},
    cluster::Cluster,
    commands::inject,
    failure::{Exit, Failure},
    printer::Printer,
};

const FORMS: &[Output] =
    &[Output::Table, Output::Wide, Output::Short, Output::Json, Output::Ndjson, Output::Yaml, Output::Junit];
/// What is checked in a directory: the controller reads JSON too.
const FILES: &[&str] = &["yaml", "yml", "json"];
/// Between two looks under `--wait`.
const AGAIN: Duration = Duration::from_secs(1);

/// What one look came to.
struct Look {
    outcomes: Vec<Outcome>,
    /// Set where the cluster itself did not answer.
    failed: Option<Exit>,
}

pub(crate) async fn run(globals: &Globals, args: &cli::Check, printer: &Printer) -> Result<(), Failure> {
    printer.only(FORMS)?;
    let started = Instant::now();
    if !args.filename.is_empty() {
        let mut files = Vec::new();
        for path in &args.filename {
            files.extend(inject::inputs(path, FILES)?);
        }
        let look = Look { outcomes: lint(&files), failed: None };
        return end(&look, args, printer, started);
    }
    let deadline = started + args.timeout;
    let mut told = Vec::new();
    loop {
        let look = match tokio::time::timeout_at(deadline, look(globals, args)).await {
            Ok(look) => look?,
            Err(_) => return Err(late(args, &told)),
        };
        let open = report::open(&look.outcomes);
        if open.is_empty() || !args.wait {
            return end(&look, args, printer, started);
        }
        if Instant::now() + AGAIN > deadline {
            show(&look, args, printer, started)?;
            return Err(late(args, &open));
        }
        if open != told {
            printer.say(format!("waiting for {}", open.join(", ")));
            told = open;
        }
        sleep(AGAIN).await;
    }
}

async fn look(globals: &Globals, args: &cli::Check) -> Result<Look, Failure> {
    if args.pre {
        return before(globals).await;
    }
    let extent = if args.proxy { Extent::Proxies } else { Extent::Whole };
    let asked = async {
        let cluster = Cluster::select(globals).await?;
        // The health of a mesh is that of all of it, whatever the context's namespace.
        Observed::ask(&cluster, &globals.mesh_namespace, globals.namespace.as_deref()).await
    };
    Ok(match asked.await {
        Ok(observed) => Look { outcomes: judge::judge(&observed, extent), failed: None },
        Err(error) => {
            let failure = Failure::from(error);
            Look { outcomes: judge::unreachable(&failure), failed: Some(failure.exit) }
        }
    })
}

/// What comes before a mesh, of the cluster or of this machine.
async fn before(globals: &Globals) -> Result<Look, Failure> {
    if globals.playground {
        return Ok(Look { outcomes: vec![pre::machine().await], failed: None });
    }
    let asked = async { pre::cluster(&Cluster::select(globals).await?).await };
    Ok(match asked.await {
        Ok((outcomes, failed)) => Look { outcomes, failed },
        Err(error) => {
            let failure = Failure::from(error);
            Look { outcomes: judge::unreachable(&failure), failed: Some(failure.exit) }
        }
    })
}

fn late(args: &cli::Check, open: &[&str]) -> Failure {
    let open = if open.is_empty() { "an answer".to_owned() } else { open.join(", ") };
    Failure::new(Exit::TimedOut, format!("timed out after {:?}, waiting for {open}", args.timeout))
        .fix("--timeout gives it longer")
}

fn show(look: &Look, args: &cli::Check, printer: &Printer, started: Instant) -> Result<(), Failure> {
    let took = started.elapsed();
    let outcomes = &look.outcomes;
    match printer.output {
        Output::Json | Output::Yaml => printer.document(&report::document(outcomes, took)),
        Output::Ndjson => report::items(outcomes).iter().try_for_each(|item| printer.line(item)),
        Output::Junit => printer.data(&report::junit(outcomes, took, args.fail_on == FailOn::Warning)),
        form => printer.data(&report::text(outcomes, took, form == Output::Short, printer.color(), printer.width())),
    }
}

/// Shows it; the report has said why where this fails.
fn end(look: &Look, args: &cli::Check, printer: &Printer, started: Instant) -> Result<(), Failure> {
    show(look, args, printer, started)?;
    let exit = match Summary::of(&look.outcomes) {
        _ if look.failed.is_some() => look.failed,
        Summary { errors: 1.., .. } => Some(Exit::Bad),
        Summary { not_allowed: 1.., .. } => Some(Exit::Unreachable),
        Summary { warnings: 1.., .. } if args.fail_on == FailOn::Warning => Some(Exit::Warnings),
        _ => None,
    };
    exit.map_or(Ok(()), |exit| Err(Failure::told(exit)))
}
