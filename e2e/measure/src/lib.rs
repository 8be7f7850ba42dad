//! What benchmarks have in common: numbers measured again and again, their bars, and the report of them. Used by
//! `e2e/bench` and `e2e/cluster-bench`. It knows nothing of what is measured.

mod figures;
mod report;
mod samples;

pub use figures::{Bar, Figures};
pub use report::{Report, complain, tell};
pub use samples::Samples;
