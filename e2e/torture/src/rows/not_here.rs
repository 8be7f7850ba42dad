//! Rows that need what an ordinary machine does not have. They stay in the table, and say why.

use crate::{
    outcome::Findings,
    rows::{NotRun, Stage},
};

pub(crate) fn clock(_: &Stage, _: &mut Findings) -> anyhow::Result<()> {
    let why = "needs faketime; certificates of other times are presented in B5, the rest is `proxy/tests/it/peers.rs`";
    Err(NotRun(why.into()).into())
}
