//! Rules into the kernel and back: which messages say what. How they travel is in [`super::netlink`].
//!
//! All of it concerns the network namespace of the calling thread.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};

use super::attributes;
use super::bytecode::Instruction;
use super::expr::{Action, Chain, Hook, Match, Rule, Ruleset, TableName};
use super::netlink::{Batch, NftError, dump};

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelChain {
    /// Its name.
    pub name: String,
    /// `nat` or `filter`.
    pub kind: String,
    /// The kernel's number of the hook, and the priority there.
    pub hook: (u32, i32),
    /// Its rules in order.
    pub rules: Vec<Vec<Instruction>>,
}

/// Makes the table be exactly `ruleset`, whatever it was before, in one transaction.
pub fn apply(ruleset: &Ruleset) -> Result<(), NftError> {
    let table = ruleset.table;
    let mut batch = without_table(table);
    batch.add(format!("create the table inet {table}"), "nf_tables", new_table(table), NLM_F_CREATE);
    for chain in &ruleset.chains {
        let what = format!("create the chain {} of the table inet {table}", chain.name);
        let module = if chain.hook.kind() == "nat" { "nft_chain_nat" } else { "nf_tables" };
        batch.add(what, module, NfTablesMessage::NewChain(new_chain(table, chain)), NLM_F_CREATE);
        for rule in &chain.rules {
            let what = format!("add to the chain {} of the table inet {table} the rule `{rule}`", chain.name);
            let message = NfTablesMessage::NewRule(new_rule(table, chain, rule));
            batch.add(what, module_of(rule), message, NLM_F_CREATE | NLM_F_APPEND);
        }
    }
    batch.commit()
}

/// Makes the table not be there; no error if it was not.
pub fn remove(table: TableName) -> Result<(), NftError> {
    without_table(table).commit()
}

/// The table's chains, `None` where there is no such table.
pub fn list(table: TableName) -> Result<Option<Vec<KernelChain>>, NftError> {
    let tables = dump(NfTablesMessage::GetTable(TableMessage { attributes: vec![] }))?;
    let named = |message: &NfTablesMessage| {
        matches!(message, NfTablesMessage::NewTable(TableMessage { attributes })
            if attributes.iter().any(|a| matches!(a, TableAttribute::Name(name) if name == table)))
    };
    if !tables.iter().any(named) {
        return Ok(None);
    }

    let mut chains: Vec<KernelChain> = Vec::new();
    for message in dump(NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }))? {
        if let NfTablesMessage::NewChain(ChainMessage { attributes }) = message
            && attributes.iter().any(|a| matches!(a, ChainAttribute::Table(name) if name == table))
        {
            chains.push(kernel_chain(attributes));
        }
    }
    for message in
        dump(NfTablesMessage::GetRule(RuleMessage { attributes: vec![RuleAttribute::Table(table.to_owned())] }))?
    {
        if let NfTablesMessage::NewRule(RuleMessage { attributes }) = message
            && attributes.iter().any(|a| matches!(a, RuleAttribute::Table(name) if name == table))
            && let Some(chain) = chains
                .iter_mut()
                .find(|chain| attributes.iter().any(|a| matches!(a, RuleAttribute::Chain(name) if *name == chain.name)))
        {
            let expressions = attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Expressions(list) => Some(list),
                _ => None,
            });
            chain.rules.push(expressions.into_iter().flatten().map(attributes::decode).collect());
        }
    }
    Ok(Some(chains))
}

impl Chain {
    /// The chain as [`list`] gives it back once it is in the kernel.
    pub fn in_kernel(&self) -> KernelChain {
        KernelChain {
            name: self.name.to_owned(),
            kind: self.hook.kind().to_owned(),
            hook: (hook_number(self.hook).into(), self.hook.priority()),
            rules: self.rules.iter().map(Rule::instructions).collect(),
        }
    }
}

/// A batch that leaves no such table: made first, so that it can be deleted whether or not it was there.
fn without_table(table: TableName) -> Batch {
    let mut batch = Batch::begin();
    batch.add(format!("create the table inet {table}"), "nf_tables", new_table(table), NLM_F_CREATE);
    let attributes = vec![TableAttribute::Name(table.to_owned())];
    let delete = NfTablesMessage::DeleteTable(TableMessage { attributes });
    batch.add(format!("delete the table inet {table}"), "nf_tables", delete, 0);
    batch
}

fn new_table(table: TableName) -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(table.to_owned())] })
}

fn new_chain(table: TableName, chain: &Chain) -> ChainMessage {
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(chain.name.to_owned()),
            ChainAttribute::Hook(vec![
                HookAttribute::Number(HookNumber::Inet(hook_number(chain.hook))),
                HookAttribute::Priority(chain.hook.priority().cast_unsigned()),
            ]),
            ChainAttribute::Type(chain.hook.kind().to_owned()),
        ],
    }
}

fn new_rule(table: TableName, chain: &Chain, rule: &Rule) -> RuleMessage {
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.name.to_owned()),
            RuleAttribute::Expressions(rule.instructions().iter().map(attributes::encode).collect()),
        ],
    }
}

fn kernel_chain(attributes: Vec<ChainAttribute>) -> KernelChain {
    let mut chain = KernelChain { name: String::new(), kind: String::new(), hook: (0, 0), rules: Vec::new() };
    for attribute in attributes {
        match attribute {
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Type(kind) => chain.kind = kind,
            ChainAttribute::Hook(hooks) => {
                for hook in hooks {
                    match hook {
                        HookAttribute::Number(number) => chain.hook.0 = number.into(),
                        HookAttribute::Priority(priority) => chain.hook.1 = priority.cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    chain
}

fn hook_number(hook: Hook) -> InetHookNumber {
    match hook {
        Hook::NatPrerouting => InetHookNumber::PreRouting,
        Hook::NatOutput | Hook::FilterOutput => InetHookNumber::LocalOut,
        Hook::NatPostrouting => InetHookNumber::PostRouting,
        Hook::FilterInput => InetHookNumber::LocalIn,
        Hook::FilterForward => InetHookNumber::Forward,
    }
}

/// The kernel module that a rule needs beyond nf_tables itself.
fn module_of(rule: &Rule) -> &'static str {
    match rule.action {
        _ if rule.matches.iter().any(|matched| matches!(matched, Match::OneIn(_))) => "nft_numgen",
        Action::Redirect(_) => "nft_redir",
        Action::Dnat(_) => "nft_nat",
        Action::Masquerade => "nft_masq",
        Action::Return | Action::Drop => "nf_tables",
    }
}
