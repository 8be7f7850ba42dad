//! What of a table a narrow terminal shows, so that no line wraps: blanks go first, then columns that say least, then
//! the middles of long names. Pure; knows widths, no text but that of a cell to be cut.

/// Blanks between columns where there is room.
pub(super) const GAP: usize = 3;
/// Blanks between columns where there is not.
pub(super) const NARROW_GAP: usize = 2;
/// A name that is cut to so much is still told from its neighbours.
pub(super) const READABLE: usize = 16;
/// Shorter than this nothing is cut.
const LEAST: usize = 6;

/// Which part of a long text may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing.
    Nothing,
    /// The middle: begin and end tell names apart.
    Middle,
    /// The beginning, which is alike in all.
    Start,
}

/// What one column wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Width of its widest text.
    pub(super) natural: usize,
    /// Width of its header.
    pub(super) header: usize,
    pub(super) cut: Cut,
    /// Columns leave before this one is cut to less.
    pub(super) readable: usize,
    /// When it leaves: the lowest first; never without.
    pub(super) leaves: Option<u8>,
}

/// The width that each column gets, or none where it leaves.
pub(super) fn fit(wishes: &[Wish], width: usize) -> Vec<Option<usize>> {
    let mut kept: Vec<bool> = vec![true; wishes.len()];
    let least = |wish: &Wish, readable: bool| match wish.cut {
        Cut::Nothing => wish.natural,
        Cut::Middle | Cut::Start => wish.natural.min(wish.header.max(if readable { wish.readable } else { LEAST })),
    };
    let total = |kept: &[bool], width_of: &dyn Fn(usize) -> usize| -> usize {
        let columns = || kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(column, _)| column);
        columns().map(width_of).sum::<usize>() + NARROW_GAP * columns().count().saturating_sub(1)
    };
    while total(&kept, &|column| least(&wishes[column], true)) > width {
        let leaving = |column: &usize| kept[*column].then_some(wishes[*column].leaves?);
        let Some(next) = (0..wishes.len()).filter(|column| leaving(column).is_some()).min_by_key(leaving) else {
            break;
        };
        kept[next] = false;
    }
    let readable = total(&kept, &|column| least(&wishes[column], true)) <= width;
    let mut widths: Vec<usize> = wishes.iter().map(|wish| wish.natural).collect();
    while total(&kept, &|column| widths[column]) > width {
        let can_shrink = |column: &usize| kept[*column] && widths[*column] > least(&wishes[*column], readable);
        // The widest has most to give.
        let Some(widest) = (0..wishes.len()).filter(can_shrink).max_by_key(|column| widths[*column]) else { break };
        widths[widest] -= 1;
    }
    kept.into_iter().zip(widths).map(|(kept, width)| kept.then_some(width)).collect()
}

/// The text in at most `width` characters, with `…` for what is gone.
pub(crate) fn middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let end = kept / 2;
    let begin: String = text.chars().take(kept - end).collect();
    begin + "…" + &text.chars().skip(length - end).collect::<String>()
}

/// The end of the text in at most `width` characters, after `…` for what is gone.
pub(crate) fn end(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    format!("…{}", text.chars().skip(length - width.saturating_sub(1)).collect::<String>())
}

impl Cut {
    pub(super) fn cut(self, text: &str, width: usize) -> String {
        match self {
            Self::Nothing => text.to_owned(),
            Self::Middle => middle(text, width),
            Self::Start => end(text, width),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(natural: usize, cut: Cut, leaves: Option<u8>) -> Wish {
        Wish { natural, header: 4, cut, readable: READABLE, leaves }
    }

    #[test]
    fn names_are_cut_while_they_can_be_read_then_columns_leave_then_names_get_shorter() {
        let wishes = [
            wish(30, Cut::Middle, None),
            wish(10, Cut::Nothing, Some(2)),
            wish(10, Cut::Nothing, Some(1)),
            wish(8, Cut::Nothing, None),
        ];
        for (width, expected) in [
            (64, [Some(30), Some(10), Some(10), Some(8)]),
            (50, [Some(16), Some(10), Some(10), Some(8)]),
            (49, [Some(27), Some(10), None, Some(8)]),
            (30, [Some(20), None, None, Some(8)]),
            (20, [Some(10), None, None, Some(8)]),
            // There is nothing left to give.
            (1, [Some(6), None, None, Some(8)]),
        ] {
            assert_eq!(fit(&wishes, width), expected, "{width}");
        }
    }

    #[test]
    fn what_is_cut_keeps_the_ends_that_tell_it_apart() {
        for (width, shown) in [(12, "web-v1-ab-cd"), (11, "web-v…ab-cd"), (6, "web…cd"), (1, "…")] {
            assert_eq!(middle("web-v1-ab-cd", width), shown);
        }
        assert_eq!(end("spiffe://cluster.local/ns/shop/sa/web", 14), "…s/shop/sa/web");
        assert_eq!(end("web", 3), "web");
    }
}
