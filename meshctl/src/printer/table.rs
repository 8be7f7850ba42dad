//! Tables of text: pure, measured without colour, no trailing blanks.

use super::fit::{Cut, GAP, NARROW_GAP, READABLE, Wish, fit};
use crate::resource;

/// Rows under headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A header, and what may become of its column where not all have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    header: &'static str,
    cut: Cut,
    readable: usize,
    leaves: Option<u8>,
    leaves_if_same: bool,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    /// The same in fewer characters.
    short: Option<String>,
    right: bool,
    tone: Tone,
}

/// A table as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Headers of the columns that had no room.
    pub(crate) left_out: Vec<&'static str>,
}

/// What a colour would say; the text says it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Good.
    Good,
    /// Worth a look.
    Warn,
    /// Bad.
    Bad,
}

impl Tone {
    /// The text in the tone's colour.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Warn => 33,
            Self::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A column that is always shown, and shown whole.
impl From<&'static str> for Column {
    fn from(header: &'static str) -> Self {
        Self { header, cut: Cut::Nothing, readable: READABLE, leaves: None, leaves_if_same: false }
    }
}

impl Column {
    /// Of names, whose middles may go.
    pub(crate) fn name(header: &'static str) -> Self {
        Self { cut: Cut::Middle, ..Self::from(header) }
    }

    /// Of texts whose beginnings may go.
    pub(crate) fn path(header: &'static str) -> Self {
        Self { cut: Cut::Start, ..Self::from(header) }
    }

    /// Of namespaces: where all are the same, the person has asked for that one, or has no other.
    pub(crate) fn namespace() -> Self {
        Self { leaves_if_same: true, ..Self::name("NAMESPACE") }
    }

    /// Is not cut to less than this while another column can leave.
    #[must_use]
    pub(crate) fn readable(self, readable: usize) -> Self {
        Self { readable, ..self }
    }

    /// The whole column may go; those with a lower `rank` go before.
    #[must_use]
    pub(crate) fn leaves(self, rank: u8) -> Self {
        Self { leaves: Some(rank), ..self }
    }
}

impl Cell {
    /// Aligned left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: clean(&text.into()), short: None, right: false, tone: Tone::Plain }
    }

    /// Aligned right, for numbers.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { right: true, ..Self::text(text) }
    }

    /// `kind/name`, with the short name of the kind where there is little room.
    pub(crate) fn workload(text: &str) -> Self {
        Self { short: Some(resource::short(&clean(text))), ..Self::text(text) }
    }

    #[must_use]
    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn shown(&self, short: bool) -> &str {
        self.short.as_deref().filter(|_| short).unwrap_or(&self.text)
    }
}

/// Names come from outside; a terminal must never take orders from them.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl Table {
    pub(crate) fn new<C: Into<Column>>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell per header");
        self.rows.push(cells);
    }

    /// As text, whole.
    pub(crate) fn render(&self, headers: bool, color: bool) -> String {
        self.draw(
            headers,
            color,
            GAP,
            &self.wishes(headers, false).iter().map(|wish| Some(wish.natural)).collect::<Vec<_>>(),
        )
    }

    /// As text whose lines are at most `width` wide.
    pub(crate) fn render_within(&self, width: usize, headers: bool, color: bool) -> Rendered {
        let whole: usize = self.wishes(headers, false).iter().map(|wish| wish.natural + GAP).sum();
        if whole <= width + GAP {
            return Rendered { text: self.render(headers, color), left_out: Vec::new() };
        }
        let widths = fit(&self.wishes(headers, true), width);
        let left_out = self.columns.iter().zip(&widths).filter(|(_, width)| width.is_none());
        let left_out = left_out.map(|(column, _)| column.header).collect();
        Rendered { text: self.draw(headers, color, NARROW_GAP, &widths), left_out }
    }

    fn wishes(&self, headers: bool, short: bool) -> Vec<Wish> {
        let of_column = |(column, Column { header, cut, readable, leaves, leaves_if_same }): (usize, &Column)| {
            let cells = || self.rows.iter().map(|row| row[column].shown(short));
            let header = if headers { header.chars().count() } else { 0 };
            let same = *leaves_if_same && cells().all(|cell| Some(cell) == cells().next());
            Wish {
                natural: cells().map(|cell| cell.chars().count()).fold(header, usize::max),
                header,
                cut: *cut,
                readable: *readable,
                leaves: if same { Some(0) } else { *leaves },
            }
        };
        self.columns.iter().enumerate().map(of_column).collect()
    }

    /// Draws the columns that have a width; the narrow ones with their short texts.
    fn draw(&self, headers: bool, color: bool, gap: usize, widths: &[Option<usize>]) -> String {
        let short = gap < GAP;
        // A header stands over its numbers: aligned as the column's first cell.
        let right = |column: usize| self.rows.first().is_some_and(|row| row[column].right);
        let header =
            |(column, Column { header, .. }): (usize, &Column)| Cell { right: right(column), ..Cell::text(*header) };
        let header: Vec<Cell> = self.columns.iter().enumerate().map(header).collect();
        let mut out = String::new();
        for row in headers.then_some(&header).into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(widths).zip(&self.columns) {
                let Some(width) = *width else { continue };
                let text = column.cut.cut(cell.shown(short), width);
                let padding = " ".repeat(width - text.chars().count());
                let text = if color { cell.tone.paint(&text) } else { text };
                let (before, after) = if cell.right { (padding, String::new()) } else { (String::new(), padding) };
                line.push_str(&format!("{before}{text}{after}{}", " ".repeat(gap)));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "RPS"]);
        table.row(vec![Cell::text("web").tone(Tone::Bad), Cell::number("7.5")]);
        table.row(vec![Cell::text("a-longer-name"), Cell::number("120.0")]);
        table
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        assert_eq!(
            table().render(true, false),
            "NAME              RPS\nweb               7.5\na-longer-name   120.0\n"
        );
        assert_eq!(table().render(false, false), "web               7.5\na-longer-name   120.0\n");
    }

    #[test]
    fn colour_does_not_move_columns() {
        let plain = table().render(true, true).replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table().render(true, false));
    }

    #[test]
    fn a_narrow_terminal_gets_short_names_and_is_told_what_has_no_room() {
        let mut table = Table::new([
            Column::namespace(),
            Column::name("WORKLOAD"),
            Column::from("RPS"),
            Column::from("P50").leaves(1),
        ]);
        for (workload, rps) in [("deployment/web", "7.5"), ("deployment/a-service-with-a-name", "120.0")] {
            table.row(vec![Cell::text("shop"), Cell::workload(workload), Cell::number(rps), Cell::number("1ms")]);
        }
        let at = |width: usize| table.render_within(width, true, false);
        assert_eq!(at(80), Rendered { text: table.render(true, false), left_out: vec![] });
        assert!(at(80).text.contains("shop        deployment/a-service-with-a-name   120.0   1ms\n"));
        assert_eq!(
            at(52).text,
            "NAMESPACE  WORKLOAD                        RPS  P50\n\
             shop       deploy/web                      7.5  1ms\n\
             shop       deploy/a-service-with-a-name  120.0  1ms\n"
        );
        assert_eq!(at(30).left_out, ["NAMESPACE"]);
        assert_eq!(
            at(30).text,
            "WORKLOAD              RPS  P50\ndeploy/web            7.5  1ms\ndeploy/a-…h-a-name  120.0  1ms\n"
        );
        assert_eq!(at(25).left_out, ["NAMESPACE", "P50"]);
        for width in 20..80 {
            assert!(at(width).text.lines().all(|line| line.chars().count() <= width), "{width}");
        }
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(vec![Cell::text("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(false, false), "a\u{fffd}[2Jb\u{fffd}c\n");
    }
}
