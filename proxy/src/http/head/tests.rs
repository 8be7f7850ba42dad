//! Heads on both sides of the line, and a comparison with the parser that hyper uses.

use super::*;

fn whole(head: &str) -> Result<Body, Refusal> {
    match read(head.as_bytes(), 0) {
        Head::Whole { len, body } => {
            assert_eq!(len, head.len(), "{head:?}");
            Ok(body)
        }
        Head::Refused(refusal) => Err(refusal),
        unfinished @ Head::Unfinished { .. } => panic!("{head:?}: {unfinished:?}"),
    }
}

#[test]
fn heads_that_are_beyond_doubt_and_what_follows_them() {
    for (head, body) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Body::Length(0)),
        ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", Body::Length(0)),
        ("M-SEARCH * HTTP/1.1\r\nHost: x\r\n\r\n", Body::Length(0)),
        ("GET http://x:80/a%20b?c=[d] HTTP/1.1\r\nHost:\r\n\r\n", Body::Length(0)),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", Body::Length(0)),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-LENGTH:  17\t\r\n\r\n", Body::Length(17)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Body::Chunked),
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\ncontent-length: 0\r\n\r\n", Body::Upgrade),
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\ncontent-length: 4\r\n\r\n", Body::Length(4)),
        ("GET / HTTP/1.1\r\nX: tab\there, \u{e9} and \"\x20\x20\r\n\r\n", Body::Length(0)),
    ] {
        assert_eq!(whole(head), Ok(body), "{head:?}");
    }
}

#[test]
fn heads_that_are_refused_and_why() {
    for (head, refusal) in [
        ("GET / HTTP/1.1\nHost: x\r\n\r\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nHost: x\n\r\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nHost: x\r\n\n", Refusal::BareLf),
        ("\nGET / HTTP/1.1\r\n\r\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nA: b\r c\r\n\r\n", Refusal::FieldValue),
        ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", Refusal::FieldValue),
        ("GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", Refusal::FieldValue),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Refusal::Fold),
        ("GET / HTTP/1.1\r\n A: b\r\n\r\n", Refusal::Fold),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nA\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", Refusal::FieldName),
        ("GET / HTTP/1.1\r\nA\0: b\r\n\r\n", Refusal::FieldName),
        ("GET\r\n\r\n", Refusal::RequestLine),
        ("GET /\r\n\r\n", Refusal::RequestLine),
        ("GET / a HTTP/1.1\r\n\r\n", Refusal::RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n", Refusal::Target),
        ("GET /\x01 HTTP/1.1\r\n\r\n", Refusal::Target),
        ("GET http://[::1/ HTTP/1.1\r\n\r\n", Refusal::Target),
        ("G(T / HTTP/1.1\r\n\r\n", Refusal::Method),
        (" GET / HTTP/1.1\r\n\r\n", Refusal::Method),
        ("GET / HTTP/1.2\r\n\r\n", Refusal::Version),
        ("GET / HTTP/2.0\r\n\r\n", Refusal::Version),
        ("GET / http/1.1\r\n\r\n", Refusal::Version),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::LengthAndChunks),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", Refusal::LengthAndChunks),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Refusal::TwoLengths),
        ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", Refusal::Length),
        ("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", Refusal::Length),
        ("POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n", Refusal::Length),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Refusal::Length),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n", Refusal::Length),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::CodingInHttp10),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::Coding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Refusal::Coding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Refusal::Coding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Coding),
    ] {
        assert_eq!(whole(head), Err(refusal), "{head:?}");
    }
}

#[test]
fn a_head_is_bounded_in_bytes_and_headers() {
    let with_headers = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(whole(&with_headers(100)), Ok(Body::Length(0)));
    assert_eq!(whole(&with_headers(101)), Err(Refusal::TooMany));
    let with_length = |n: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(n - 23));
    assert_eq!(whole(&with_length(MAX_HEAD)), Ok(Body::Length(0)));
    assert_eq!(whole(&with_length(MAX_HEAD + 1)), Err(Refusal::TooLong));
    let endless = &with_length(MAX_HEAD + 1).into_bytes()[..MAX_HEAD];
    assert_eq!(read(endless, 0), Head::Refused(Refusal::TooLong));
}

#[test]
fn refusals_are_told_by_their_number() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_number(refusal as u8), Some(refusal));
    }
    assert_eq!(Refusal::from_number(17), None);
}

/// Pieces from which heads on both sides of the line are put together.
const PIECES: [&str; 24] = [
    "GET / HTTP/1.1",
    "POST /a?b HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "Host: x",
    "A:b",
    "\0",
    "content-length: 3",
    "content-length: 3\r\n",
    "transfer-encoding: chunked",
    "transfer-encoding: a",
    "/#?[",
    "HTTP/1.1",
    "\u{e9}",
    "upgrade: a",
    "a : b",
    ";",
    "0",
    "connection: close",
];

proptest::proptest! {
    #[test]
    fn whatever_passes_is_read_the_same_way_by_the_parser_of_hyper(
        pieces in proptest::collection::vec(0..PIECES.len(), 1..16), line in 0..2_usize, splits: Vec<proptest::sample::Index>,
    ) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let bytes = format!("{}\r\n{text}\r\n\r\n", PIECES[line]).into_bytes();
        let verdict = read(&bytes, 0);
        if let Head::Whole { len, .. } = verdict {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let parsed = httparse::Request::new(&mut headers).parse(&bytes);
            proptest::prop_assert_eq!(parsed, Ok(httparse::Status::Complete(len)));
        }
        // In pieces it is the same.
        let mut searched = 0;
        let mut ends: Vec<usize> = splits.iter().map(|split| split.index(bytes.len())).collect();
        ends.sort_unstable();
        let mut early = Head::Unfinished { searched: 0 };
        for end in ends {
            early = read(&bytes[..end], searched);
            match early {
                Head::Unfinished { searched: so_far } => searched = so_far,
                _ => break,
            }
        }
        let last = if matches!(early, Head::Unfinished { .. }) { read(&bytes, searched) } else { early };
        proptest::prop_assert_eq!(last, verdict);
    }
}
