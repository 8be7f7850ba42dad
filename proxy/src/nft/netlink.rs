//! The netlink side: one batch of changes, which the kernel makes wholly or not at all, and dumps.
//!
//! Works on the network namespace of the calling thread. Blocking, but never waiting: the kernel has answered when the
//! request has been sent. Does not know what the messages say (see [`super::kernel`]).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use socket2::SockRef;

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

/// A transaction being written.
pub(super) struct Batch {
    steps: Vec<Step>,
}

/// One message of a batch; its sequence number is its index.
struct Step {
    what: String,
    module: &'static str,
    message: NetlinkMessage<NetfilterMessage>,
}

impl Batch {
    pub(super) fn begin() -> Self {
        let mut batch = Self { steps: Vec::new() };
        batch.control("begin a transaction", ControlMessage::BatchBegin);
        batch
    }

    /// Adds a change. `what` it does and the kernel `module` that does it are for the error text.
    pub(super) fn add(&mut self, what: String, module: &'static str, message: NfTablesMessage, flags: u16) {
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
    pub(super) fn commit(mut self) -> Result<(), NftError> {
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
pub(super) fn dump(request: NfTablesMessage) -> Result<Vec<NfTablesMessage>, NftError> {
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

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::nftables::TableMessage;

    use super::*;

    #[test]
    fn a_refusal_says_what_was_refused_and_what_helps() {
        let mut batch = Batch::begin();
        let message = NfTablesMessage::NewTable(TableMessage { attributes: vec![] });
        batch.add("add the rule `masquerade`".into(), "nft_masq", message, 0);
        for (index, errno, text) in [
            (0, Errno::EPERM, "needs CAP_NET_ADMIN"),
            (
                0,
                Errno::EOPNOTSUPP,
                "begin a transaction: EOPNOTSUPP: Operation not supported on transport endpoint; \
                                    the kernel needs the module nf_tables (`modprobe nf_tables` on the node)",
            ),
            (
                1,
                Errno::ENOENT,
                "add the rule `masquerade`: ENOENT: No such file or directory; \
                                the kernel needs the module nft_masq (`modprobe nft_masq` on the node)",
            ),
            (1, Errno::EINVAL, "add the rule `masquerade`: EINVAL: Invalid argument"),
            (9, Errno::EBUSY, "change the packet filter: EBUSY: Device or resource busy"),
        ] {
            let error = batch.refusal(index, errno).to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
