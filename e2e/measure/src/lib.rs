//! What benchmarks have in common: numbers measured again and again, their bars, and the report of them. Used by `e2e/bench` and
//! `e2e/cluster-bench`; `e2e/torture` has a report of its own and writes it by the same means. It knows nothing of what is measured.

mod figures;
mod missing;
mod report;
mod samples;

pub use figures::{Bar, Figures};
pub use missing::Missing;
pub use report::{Report, build_directory, complain, tell, write};
pub use samples::Samples;
