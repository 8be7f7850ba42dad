//! Tables of text: pure, measured without colour, no trailing blanks.

/// Rows under headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    right: bool,
    tone: Tone,
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

impl Cell {
    /// Aligned left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: clean(&text.into()), right: false, tone: Tone::Plain }
    }

    /// Aligned right, for numbers.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { right: true, ..Self::text(text) }
    }

    #[must_use]
    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// Names come from outside; a terminal must never take orders from them.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl Table {
    pub(crate) fn new(headers: impl Into<Vec<&'static str>>) -> Self {
        Self { headers: headers.into(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headers.len(), "a cell per header");
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, headers: bool, color: bool) -> String {
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> =
            self.headers.iter().map(|header| if headers { width(header) } else { 0 }).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(&cell.text));
            }
        }
        // A header stands over its numbers: aligned as the column's first cell.
        let right = |column: usize| self.rows.first().is_some_and(|row| row[column].right);
        let mut out = String::new();
        if headers {
            let cells = self.headers.iter().enumerate().map(|(column, header)| Cell {
                text: (*header).to_owned(),
                right: right(column),
                tone: Tone::Plain,
            });
            push_row(&mut out, &cells.collect::<Vec<_>>(), &widths, false);
        }
        for row in &self.rows {
            push_row(&mut out, row, &widths, color);
        }
        out
    }
}

fn push_row(out: &mut String, cells: &[Cell], widths: &[usize], color: bool) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let text = if color { cell.tone.paint(&cell.text) } else { cell.text.clone() };
        let padding = " ".repeat(width - cell.text.chars().count());
        let (before, after) = if cell.right { (padding, String::new()) } else { (String::new(), padding) };
        line.push_str(&format!("{before}{text}{after}   "));
    }
    out.push_str(line.trim_end());
    out.push('\n');
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
    fn control_characters_never_reach_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(vec![Cell::text("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(false, false), "a\u{fffd}[2Jb\u{fffd}c\n");
    }
}
