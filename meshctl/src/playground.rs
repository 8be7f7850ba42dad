//! `meshctl playground`: the whole mesh on one machine.

pub(crate) mod paths;
