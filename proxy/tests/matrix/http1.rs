//! HTTP/1, message by message.

use mesh_proto::workload::Protocol;

use super::{
    dialogue::{
        Step::{
            self, App, AppEnds, AppSees, AppSeesEnd, Client, ClientEnds, ClientPauses, ClientSees, ClientSeesEnd,
            NewConnection,
        },
        play,
    },
    stage::Stage,
};

const TABLE: &[(&str, &[Step])] = &[
    (
        "a request, kept alive, and another",
        &[
            Client("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET /1 HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
            Client("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
        ],
    ),
    (
        "a client that pauses in its first line, and in its head",
        &[
            Client("GET /slow"),
            ClientPauses,
            Client("ly HTTP/1.1\r\nHo"),
            ClientPauses,
            Client("st: web\r\n\r\n"),
            AppSees("GET /slowly HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
    ),
    (
        "a client that sends three at once gets three answers in their order",
        &[
            Client("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Client("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"),
            AppSees("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"),
            AppSees("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"),
            AppSees("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"),
        ],
    ),
    (
        "names are passed on as they were written, repeated ones each for itself, and a reason as it was given",
        &[
            Client("GET / HTTP/1.1\r\nhOsT: web\r\nX-ONE: 1\r\nx-One: 2\r\nCookie: a=b\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nhOsT: web\r\nX-ONE: 1\r\nx-One: 2\r\nCookie: a=b\r\n\r\n"),
            App("HTTP/1.1 299 Very Fine\r\nSet-cookie: a\r\nSET-Cookie: b\r\nETag: \"x\"\r\ncontent-length: 0\r\n\r\n"),
            ClientSees(
                "HTTP/1.1 299 Very Fine\r\nSet-cookie: a\r\nSET-Cookie: b\r\nETag: \"x\"\r\ncontent-length: 0\r\n\r\n",
            ),
        ],
    ),
    (
        "chunks both ways, as they come",
        &[
            Client("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            App("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            Client("6; a=b\r\n world\r\n"),
            AppSees("6\r\n world\r\n"),
            App("2\r\n, \r\n"),
            ClientSees("2\r\n, \r\n"),
            Client("0\r\n\r\n"),
            AppSees("0\r\n\r\n"),
            App("0\r\n\r\n"),
            ClientSees("0\r\n\r\n"),
        ],
    ),
    (
        "trailers both ways, where they are announced",
        &[
            Client(
                "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            Client("5\r\nhello\r\n0\r\nx-sum: 1\r\nmesh_client_id: me\r\n\r\n"),
            AppSees(
                "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            AppSees("5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nTrailer: x-sum, mesh-error\r\nTransfer-Encoding: chunked\r\n\r\n"),
            App("2\r\nok\r\n0\r\nx-sum: 2\r\nmesh-error: denied\r\n\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nTrailer: x-sum, mesh-error\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ClientSees("2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n"),
        ],
    ),
    (
        "a client that waits to be asked is asked when the application asks",
        &[
            Client("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            App("HTTP/1.1 100 Continue\r\n\r\n"),
            ClientSees("HTTP/1.1 100 Continue\r\n\r\n"),
            Client("hello"),
            AppSees("hello"),
            App("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
            ClientSees("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
            Client("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "a client that waits to be asked is not asked when the application answers instead",
        &[
            Client("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n"),
            App("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"),
            ClientSees("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nconnection: close\r\n\r\nno"),
            ClientSeesEnd,
            AppSeesEnd,
        ],
    ),
    (
        "an application that does not know the expectation gets the body after a while",
        &[
            Client("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            ClientSees("HTTP/1.1 100 Continue\r\n\r\n"),
            Client("hello"),
            AppSees("hello"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
    ),
    (
        "an application that answers before it has the body",
        &[
            Client("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello"),
            App("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"),
            ClientSees("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"),
        ],
    ),
    (
        "HEAD: the length of what would come, and the next answer right behind it",
        &[
            Client("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        ],
    ),
    (
        "204 and 304 have no body, whatever their heads say",
        &[
            Client("DELETE / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("DELETE / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
            ClientSees("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
            Client("GET / HTTP/1.1\r\nHost: web\r\nIf-None-Match: \"x\"\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\nIf-None-Match: \"x\"\r\n\r\n"),
            App("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
            ClientSees("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
            Client("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "a WebSocket: nothing of it before the application agrees, everything after",
        &[
            Client("GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly frame"),
            AppSees("GET /ws HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            App("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"),
            AppSees("early frame"),
            ClientSees("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi"),
            Client("GET / HTTP/1.1\nno HTTP\0 here"),
            AppSees("GET / HTTP/1.1\nno HTTP\0 here"),
            ClientEnds,
            AppSeesEnd,
            App("bye"),
            AppEnds,
            ClientSees("bye"),
            ClientSeesEnd,
        ],
    ),
    (
        "an application that does not agree: what was behind the offer is the next request",
        &[
            Client("GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            Client("GET /admin HTTP/1.1\r\nHost: web\r\nmesh-client-id: me\r\n\r\n"),
            AppSees("GET /ws HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
            AppSees("GET /admin HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "an offer of h2c is not passed on, and neither is one with a body",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
            Client("HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Client("POST / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: a\r\nContent-Length: 2\r\n\r\nhi"),
            AppSees("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi"),
        ],
    ),
    (
        "a change of protocol that nobody asked for is refused",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"),
            ClientSees("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\n"),
            ClientSees("mesh-error: upstream-protocol-error\r\n"),
        ],
    ),
    (
        "the target in absolute form names the host",
        &[
            Client("GET http://web:80/a?b HTTP/1.1\r\nHost: other\r\n\r\n"),
            AppSees("GET /a?b HTTP/1.1\r\nHost: web:80\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Client("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "HTTP/1.0: no host is needed, no chunks come back, and the end is the end of the body",
        &[
            Client("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nhost: {destination}\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"),
            ClientSees("HTTP/1.0 200 OK\r\n\r\nyes"),
            ClientSeesEnd,
        ],
    ),
    (
        "HTTP/1.0, kept alive where both ask for it",
        &[
            Client("GET / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nconnection: keep-alive\r\n\r\nyes"),
            ClientSees("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nconnection: keep-alive\r\n\r\nyes"),
            // To an application of HTTP/1.0 on a new connection, where chunks may be tried again.
            Client("POST /2 HTTP/1.0\r\nHost: web\r\n\r\n"),
            NewConnection,
            AppSees("POST /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "a body that ends with the application's connection comes in chunks",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\n\r\nall"),
            ClientSees("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n"),
            AppEnds,
            ClientSees("0\r\n\r\n"),
            Client("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
            NewConnection,
            AppSees("GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"),
        ],
    ),
    (
        "an answer that is no HTTP is not passed on",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("SSH-2.0-x\r\n\r\n"),
            ClientSees("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\n"),
            ClientSees("mesh-error: upstream-protocol-error\r\n"),
        ],
    ),
    (
        "an answer with two lengths is not passed on",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            ClientSees("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\n"),
            ClientSees("mesh-error: upstream-protocol-error\r\n"),
        ],
    ),
    (
        "an answer that breaks off is not ended for the client",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            AppEnds,
            ClientSeesEnd,
        ],
    ),
    (
        "an answer with a chunk that is none is not ended for the client",
        &[
            Client("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            AppSees("GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
            App("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            ClientSees("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n"),
            App("nothing\r\n"),
            ClientSeesEnd,
        ],
    ),
];

pub(crate) async fn every_message_of_http1_arrives_as_it_was_but_for_what_is_about_the_connection(stage: &impl Stage) {
    for ip in stage.families() {
        for protocol in [Protocol::Http1, Protocol::Detect] {
            for (what, steps) in TABLE {
                play(stage, what, protocol, ip, steps).await;
            }
        }
    }
}
