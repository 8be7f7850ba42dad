//! How wide the columns of a stream are: they cannot wait for the widest cell, and must fit the terminal. Pure.

/// The columns of a line, as one stream has them from its header to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    widths: [usize; 7],
    gap: usize,
    /// Cells that are too long are cut; else they push the rest of their line.
    pub(super) cuts: bool,
    /// Neither bytes nor milliseconds.
    pub(super) compact: bool,
    pub(super) wide: bool,
}

/// Status of what the mesh itself ended before there was an answer.
pub(super) const ERROR: &str = "error";

/// Between cells.
const GAP: usize = 2;
/// Bytes and TLS.
const TAIL: usize = 12;
/// Where every cell of the demo shop fits.
const NARROW: [usize; 7] = [12, 16, 16, 6, 16, 6, 7];
/// Whole pod names.
const WIDE: [usize; 7] = [12, 34, 34, 6, 24, 6, 7];
/// For terminals that are narrower than that.
const COMPACT: [usize; 7] = [8, 14, 14, 6, 8, 6, 7];

impl Layout {
    /// Through a pipe: nothing is cut.
    pub(super) const WHOLE: Self = Self { widths: NARROW, gap: GAP, cuts: false, compact: false, wide: false };

    /// For a terminal of so many columns; whole lines where there is none, or `wide` is asked for.
    pub(super) fn new(wide: bool, terminal: Option<usize>) -> Self {
        let whole = Self { wide, ..Self::WHOLE };
        let Some(columns) = terminal.filter(|_| !wide) else {
            return if wide { Self { widths: WIDE, ..whole } } else { whole };
        };
        let needs = |widths: [usize; 7], gap: usize| widths.iter().sum::<usize>() + gap * widths.len();
        let (mut widths, cuts) = (NARROW, true);
        if let Some(spare) = columns.checked_sub(needs(NARROW, GAP) + TAIL) {
            for (column, share) in [(1, spare / 4), (2, spare / 4), (4, spare / 2)] {
                widths[column] += share;
            }
            return Self { widths, cuts, ..whole };
        }
        widths = COMPACT;
        widths[4] += columns.saturating_sub(needs(COMPACT, 1) + "TLS".len());
        Self { widths, gap: 1, cuts, compact: true, wide }
    }

    pub(super) fn row(&self, cells: &[String; 7]) -> String {
        let mut out = String::new();
        for (column, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            let cell = match column {
                _ if !self.cuts || cell.chars().count() <= width => cell.clone(),
                // Of a path the end says most, of a name both ends do.
                4 => format!("…{}", last(cell, width - 1)),
                _ => format!("{}…{}", cell.chars().take((width - 1) / 2).collect::<String>(), last(cell, width / 2)),
            };
            let width = width + self.gap;
            out.push_str(&format!("{cell:<width$}"));
            if cell.chars().count() >= width {
                out.push_str("  ");
            }
        }
        out
    }

    /// Where lines have an end, the code of what the mesh itself answered has no room behind them: it stands beside the
    /// status, in place of a latency that says little then and if need be of the path.
    pub(super) fn row_with_code(mut self, mut cells: [String; 7], code: &str) -> String {
        cells[5] = if cells[5] == ERROR { code.to_owned() } else { format!("{} {code}", cells[5]) };
        cells[6].clear();
        let span = self.widths[5] + self.widths[6];
        let more = cells[5].chars().count().saturating_sub(span).min(self.widths[4] - 1);
        self.widths[4] -= more;
        self.widths[5] = span + more;
        self.widths[6] = 0;
        self.row(&cells)
    }
}

fn last(text: &str, count: usize) -> String {
    text.chars().skip(text.chars().count().saturating_sub(count)).collect()
}
