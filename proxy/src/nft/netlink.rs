//! Rules into the kernel and back, over netlink. A change is one batch: the kernel makes all of it or nothing.
//!
//! Works on the network namespace of the calling thread. Blocking, but never waiting: the kernel has answered when the
//! request has been sent.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use socket2::SockRef;

use super::attributes;
use super::bytecode::Instruction;
use super::expr::{Action, Chain, Hook, Match, Rule, Ruleset, TableName};

/// `NFNL_SUBSYS_NFTABLES`, for which a batch is.
const NFTABLES: u16 = 10;
/// Asked of the kernel for what is sent and received at once, in bytes; it gives as much as its limits allow. A rule
/// takes about 300 bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// Why rules could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// No netlink socket, or it failed in use.
    #[error("{act} netlink: {source}")]
    Socket {
        /// `open`, `send to` or `receive from`.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process may not change the packet filter of this network namespace.
    #[error(
        "change the packet filter: needs CAP_NET_ADMIN in the user namespace that owns this network namespace \
         (in Kubernetes: container securityContext with runAsUser 0 and capabilities.add NET_ADMIN)"
    )]
    Forbidden,
    /// The kernel lacks a part of nftables.
    #[error("{what}: {source}; the kernel needs the module {module} (`modprobe {module}` on the node)")]
    MissingModule {
        /// What was being made.
        what: String,
        /// The module that would provide it.
        module: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The kernel refused one step; nothing has changed.
    #[error("{what}: {source}")]
    Refused {
        /// What was being made.
        what: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// More rules than the kernel takes in one batch.
    #[error("send {messages} changes in one batch of {bytes} bytes: too many rules for this kernel's socket buffers")]
    TooLarge {
        /// Number of changes.
        messages: usize,
        /// Their size.
        bytes: usize,
    },
    /// The kernel neither confirmed nor refused the batch.
    #[error("change the packet filter: no answer from the kernel")]
    NoAnswer,
    /// An answer that is not netlink as we know it.
    #[error("read the kernel's answer: {0}")]
    Unreadable(String),
}

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
    let mut batch = Batch::replacing(table);
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
    Batch::replacing(table).commit()
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

/// A transaction being written.
struct Batch {
    steps: Vec<Step>,
}

/// One message of a batch; its sequence number is its index.
struct Step {
    what: String,
    module: &'static str,
    message: NetlinkMessage<NetfilterMessage>,
}

impl Batch {
    /// A batch that leaves no such table: made first, so that it can be deleted whether or not it was there.
    fn replacing(table: TableName) -> Self {
        let mut batch = Self { steps: Vec::new() };
        batch.control("begin a transaction", ControlMessage::BatchBegin);
        batch.add(format!("create the table inet {table}"), "nf_tables", new_table(table), NLM_F_CREATE);
        let attributes = vec![TableAttribute::Name(table.to_owned())];
        let delete = NfTablesMessage::DeleteTable(TableMessage { attributes });
        batch.add(format!("delete the table inet {table}"), "nf_tables", delete, 0);
        batch
    }

    fn add(&mut self, what: String, module: &'static str, message: NfTablesMessage, flags: u16) {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        self.push(what, module, NetfilterMessage::new(header, message), flags);
    }

    fn control(&mut self, what: &str, message: ControlMessage) {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
        self.push(what.to_owned(), "nf_tables", NetfilterMessage::new(header, message), 0);
    }

    fn push(&mut self, what: String, module: &'static str, message: NetfilterMessage, flags: u16) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = u32::try_from(self.steps.len()).expect("fewer steps than 2^32");
        self.steps.push(Step { what, module, message });
    }

    /// Sends the batch and checks every answer. A step that fails always answers; steps that succeed do only if asked,
    /// and only the last is, because hundreds of answers would not fit into the socket's buffer.
    fn commit(mut self) -> Result<(), NftError> {
        let confirmed = self.steps.len() - 1;
        self.steps[confirmed].message.header.flags |= NLM_F_ACK;
        self.control("end the transaction", ControlMessage::BatchEnd);

        let mut bytes = Vec::new();
        for step in &mut self.steps {
            append(&mut bytes, &mut step.message);
        }
        let socket = open()?;
        match socket.send_to(&bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                return Err(NftError::TooLarge { messages: self.steps.len(), bytes: bytes.len() });
            }
            Err(source) => return Err(NftError::Socket { act: "send to", source }),
        }

        let mut confirmation = false;
        while let Some(datagram) = receive(&socket)? {
            for message in messages(&datagram) {
                let message = message?;
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                let index = usize::try_from(message.header.sequence_number).unwrap_or(usize::MAX);
                match answer.code {
                    None => confirmation |= index == confirmed,
                    Some(code) => return Err(self.refusal(index, Errno::from_raw(-code.get()))),
                }
            }
        }
        if confirmation { Ok(()) } else { Err(NftError::NoAnswer) }
    }

    /// What the kernel's refusal of one step means.
    fn refusal(&self, index: usize, source: Errno) -> NftError {
        let (what, module) = match self.steps.get(index) {
            Some(step) => (step.what.clone(), step.module),
            None => ("change the packet filter".to_owned(), "nf_tables"),
        };
        match source {
            Errno::EPERM => NftError::Forbidden,
            Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
                NftError::MissingModule { what, module, source }
            }
            _ => NftError::Refused { what, source },
        }
    }
}

/// All objects of one kind, in all tables.
fn dump(request: NfTablesMessage) -> Result<Vec<NfTablesMessage>, NftError> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, request));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut bytes = Vec::new();
    append(&mut bytes, &mut message);
    let socket = open()?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(|source| NftError::Socket { act: "send to", source })?;

    let mut objects = Vec::new();
    while let Some(datagram) = receive(&socket)? {
        for message in messages(&datagram) {
            match message?.payload {
                NetlinkPayload::Done(_) => return Ok(objects),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::NfTables(object),
                    ..
                }) => objects.push(object),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return match Errno::from_raw(-error.raw_code()) {
                        Errno::EPERM => Err(NftError::Forbidden),
                        source => Err(NftError::Refused { what: "list the packet filter".into(), source }),
                    };
                }
                _ => {}
            }
        }
    }
    Err(NftError::NoAnswer)
}

fn open() -> Result<Socket, NftError> {
    let unusable = |source| NftError::Socket { act: "open", source };
    let socket = Socket::new(NETLINK_NETFILTER).map_err(unusable)?;
    socket.set_non_blocking(true).map_err(unusable)?;
    // Answers without the request repeated; an older kernel that cannot do it just sends more.
    let _ = socket.set_cap_ack(true);
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER).map_err(unusable)?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER).map_err(unusable)?;
    Ok(socket)
}

fn append(bytes: &mut Vec<u8>, message: &mut NetlinkMessage<NetfilterMessage>) {
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// The next datagram of answers; `None` when there is none left.
fn receive(socket: &Socket) -> Result<Option<Vec<u8>>, NftError> {
    match socket.recv_from_full() {
        Ok((bytes, _)) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(source) => Err(NftError::Socket { act: "receive from", source }),
    }
}

/// The messages of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<NetfilterMessage>, NftError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match NetlinkMessage::<NetfilterMessage>::deserialize(rest) {
            Ok(message) => {
                let length = usize::try_from(message.header.length).unwrap_or(rest.len()).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                Some(Ok(message))
            }
            Err(error) => {
                rest = &[];
                Some(Err(NftError::Unreadable(error.to_string())))
            }
        }
    })
}
