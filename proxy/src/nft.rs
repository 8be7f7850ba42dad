//! Just enough nftables, without the `nft` program: rules as values ([`Ruleset`]), their text (its `Display` is what
//! `nft -y list table` shows and `nft -f` reads) and their way into the kernel ([`apply`], [`remove`], [`list`]).
//!
//! Used by [`crate::redirect`] in a pod and by the playground on its node. Knows nothing of the mesh: which rules there
//! should be is decided by the callers.
//!
//! A rule exists in three forms, each made from the one before: the value ([`Rule`]), the instructions of the kernel's
//! virtual machine ([`Instruction`], what `nft --debug=netlink` shows) and netlink attributes. [`list`] reads back
//! instructions, so that a test can compare what the kernel has with what was meant.

mod attributes;
mod bytecode;
mod expr;
mod kernel;
mod netlink;
mod print;

pub use bytecode::Instruction;
pub use expr::{Action, Chain, Hook, Match, Protocol, Rule, Ruleset, TableName, spread};
pub use kernel::{KernelChain, apply, list, remove};
pub use netlink::NftError;
