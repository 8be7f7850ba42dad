//! `meshctl explain` and `meshctl help TOPIC`: offline, from [`crate::explain`].

use serde::Serialize;

use crate::{
    cli::Output,
    explain::{self, Page},
    failure::{Exit, Failure},
    printer::{API_VERSION, Printer},
};

/// A page as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    page: &'a Page,
}

const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Json, Output::Ndjson, Output::Yaml, Output::Name];

pub(crate) fn run(topic: Option<&str>, printer: &Printer) -> Result<(), Failure> {
    printer.only(FORMS)?;
    match topic {
        Some(name) => page(name, printer),
        None => list(printer),
    }
}

fn page(name: &str, printer: &Printer) -> Result<(), Failure> {
    let page = explain::find(name).map_err(|meant| {
        let failure = Failure::new(Exit::NotFound, format!("nothing is known by the name {name:?}"));
        failure.fix(match meant {
            Some(meant) => format!("did you mean {meant}? meshctl explain lists every name"),
            None => "meshctl explain lists every name".to_owned(),
        })
    })?;
    match printer.output {
        Output::Table | Output::Wide => printer.data(&page.render(printer.text_width())),
        Output::Name => printer.data(&format!("{}\n", page.name)),
        _ => {
            let document = Document { api_version: API_VERSION, kind: "Explanation", page: &page };
            if printer.output == Output::Ndjson { printer.line(&document) } else { printer.document(&document) }
        }
    }
}

fn list(printer: &Printer) -> Result<(), Failure> {
    let pages = explain::all();
    if !matches!(printer.output, Output::Table | Output::Wide) {
        return printer.list("ExplanationList", &pages, |_| {
            crate::printer::table::Table::new::<crate::printer::table::Column>([])
        });
    }
    let mut text = String::from("meshctl explain NAME, where NAME is one of\n");
    for sort in pages.chunk_by(|a, b| a.about == b.about) {
        text.push_str(&format!("\n{}\n", sort[0].about.text()));
        let names: Vec<&str> = sort.iter().map(|page| page.name.as_str()).collect();
        text.push_str(&explain::wrap(&names.join(" "), printer.text_width(), "  "));
    }
    printer.data(&text)
}
