//! The DNS server of the node: datagrams, and connections for answers that do not fit.
//!
//! Pods find it in their `resolv.conf`. UDP is not redirected, so it works before a pod's proxy does.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use mesh_runtime::{serve, tasks::Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};

/// Port of DNS.
pub(crate) const PORT: u16 = 53;

/// Largest query that is read: one question needs 300 bytes.
const LARGEST_QUERY: usize = 1232;
/// What fits in a datagram where the client does not say more (RFC 1035 §4.2.1).
const SMALLEST_LIMIT: u16 = 512;
/// Connections at a time, and how long each may take.
const CONNECTIONS: usize = 16;
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);

/// Answers a query; [`super::answer`] with the objects of now.
pub(crate) type Resolve = Arc<dyn Fn(&Message) -> Message + Send + Sync>;

/// Serves on these sockets, which belong to the node's network, as long as `tasks` live.
pub(crate) fn serve(
    tasks: &Tasks,
    datagrams: std::net::UdpSocket,
    connections: std::net::TcpListener,
    resolve: Resolve,
) -> io::Result<()> {
    datagrams.set_nonblocking(true)?;
    connections.set_nonblocking(true)?;
    let (datagrams, connections) = (UdpSocket::from_std(datagrams)?, TcpListener::from_std(connections)?);
    let stop = tasks.token();
    let (for_datagrams, owner) = (Arc::clone(&resolve), tasks.clone());
    tasks.spawn("dns", async move {
        tokio::select! {
            () = serve_datagrams(&datagrams, &for_datagrams) => {}
            () = serve_connections(&connections, &resolve, &owner) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(())
}

async fn serve_datagrams(socket: &UdpSocket, resolve: &Resolve) {
    let mut buffer = [0; LARGEST_QUERY];
    loop {
        // An error is about an earlier answer that nobody took; the next datagram is another's.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = answer_datagram(&buffer[..length], resolve) {
            send(socket, &answer, client).await;
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    // Whoever does not get it asks again.
    let _ = socket.send_to(answer, client).await;
}

/// The answer to a datagram, if it asks anything.
pub(crate) fn answer_datagram(query: &[u8], resolve: &Resolve) -> Option<Vec<u8>> {
    let (answer, limit) = match Message::from_vec(query) {
        Ok(query) if query.metadata.message_type == MessageType::Response => return None,
        Ok(query) => (resolve(&query), query.max_payload()),
        Err(_) => (not_understood(query)?, SMALLEST_LIMIT),
    };
    let whole = answer.to_vec().ok()?;
    if whole.len() <= usize::from(limit) { Some(whole) } else { answer.truncate().to_vec().ok() }
}

async fn serve_connections(listener: &TcpListener, resolve: &Resolve, tasks: &Tasks) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (socket, _) = serve::accept(listener).await;
        let resolve = Arc::clone(resolve);
        tasks.spawn("dns connection", async move {
            // A client that breaks the rules, leaves or dawdles is its own affair.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, serve_connection(socket, &resolve)).await;
            drop(slot);
        });
    }
}

/// Queries one after the other, each with its length before it (RFC 1035 §4.2.2).
async fn serve_connection(mut socket: TcpStream, resolve: &Resolve) -> io::Result<()> {
    loop {
        let length = usize::from(socket.read_u16().await?);
        if length > LARGEST_QUERY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut query = vec![0; length];
        socket.read_exact(&mut query).await?;
        let answer = match Message::from_vec(&query) {
            Ok(query) => Some(resolve(&query)),
            Err(_) => not_understood(&query),
        };
        let answer = answer.and_then(|answer| answer.to_vec().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        socket.write_u16(length).await?;
        socket.write_all(&answer).await?;
    }
}

/// For bytes with an id but no sense. Nothing for an answer: two servers must not talk to each other.
fn not_understood(query: &[u8]) -> Option<Message> {
    let [high, low, flags, ..] = *query else { return None };
    let is_answer = flags & 0x80 != 0;
    (!is_answer).then(|| Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, ResponseCode::FormErr))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::Query,
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    use super::*;

    /// Answers with as many addresses as the name's first label says.
    fn many() -> Resolve {
        Arc::new(|query| {
            let question = &query.queries[0];
            let count: u32 = question.name().to_ascii().split('.').next().unwrap().parse().unwrap();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            answer.add_query(question.clone());
            let record = |n| Record::from_rdata(question.name().clone(), 5, RData::A(A(Ipv4Addr::from_bits(n))));
            answer.add_answers((0..count).map(record));
            answer
        })
    }

    fn query(count: u32) -> Vec<u8> {
        let mut query = Message::query();
        query.metadata.id = 7;
        query.add_query(Query::query(Name::from_ascii(format!("{count}.test.")).unwrap(), RecordType::A));
        query.to_vec().unwrap()
    }

    /// Found by fuzzing: their names came back with the refusal, more than a datagram holds.
    #[test]
    fn many_questions_are_refused_in_few_bytes() {
        let mut query = Message::query();
        query.add_queries((0..111).map(|_| Query::query(Name::root(), RecordType::A)));
        let resolve: Resolve = Arc::new(|query| super::super::answer(query, &[], &[]));
        let bytes = answer_datagram(&query.to_vec().unwrap(), &resolve).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((bytes.len(), answer.metadata.response_code), (12, ResponseCode::FormErr));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_a_datagram_comes_whole_by_connection() {
        let tasks = Tasks::new();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let connections = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (by_datagram, by_connection) = (datagrams.local_addr().unwrap(), connections.local_addr().unwrap());
        serve(&tasks, datagrams, connections, many()).unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 2048];
        // Nonsense in between is answered too, and stops nothing.
        for (sent, expected) in [(query(2), (2, false)), (vec![0, 9, 0, 1], (0, false)), (query(100), (0, true))] {
            client.send_to(&sent, by_datagram).await.unwrap();
            let length = client.recv(&mut buffer).await.unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            assert!(length <= usize::from(SMALLEST_LIMIT));
            assert_eq!((answer.answers.len(), answer.metadata.truncation), expected);
        }

        let mut client = TcpStream::connect(by_connection).await.unwrap();
        for _ in 0..2 {
            let query = query(100);
            client.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
            client.write_all(&query).await.unwrap();
            let mut answer = vec![0; usize::from(client.read_u16().await.unwrap())];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
        }
        assert!(tasks.shutdown(CONNECTION_LIMIT).await.is_clean());
    }

    #[test]
    fn an_answer_is_not_answered() {
        let mut answer = query(1);
        answer[2] |= 0x80;
        for sent in [&answer[..], &answer[..4], &[0, 1]] {
            assert!(answer_datagram(sent, &many()).is_none(), "{sent:?}");
        }
    }
}
