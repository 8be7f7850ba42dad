//! HTTP/2 frame by frame (RFC 9113 §4.1, §6), for tests that say what no library would say.

/// Types of frames.
pub const DATA: u8 = 0;
/// The head of a message.
pub const HEADERS: u8 = 1;
/// Deprecated; to be ignored.
pub const PRIORITY: u8 = 2;
/// The end of one stream.
pub const RST_STREAM: u8 = 3;
/// Settings of the sender, or with [`ACK`] their receipt.
pub const SETTINGS: u8 = 4;
/// A push, which nobody asked for.
pub const PUSH_PROMISE: u8 = 5;
/// To be answered with the same, and [`ACK`].
pub const PING: u8 = 6;
/// The end of the connection.
pub const GOAWAY: u8 = 7;
/// More may be sent.
pub const WINDOW_UPDATE: u8 = 8;
/// What did not fit into the frame before.
pub const CONTINUATION: u8 = 9;

/// Flag of [`SETTINGS`] and [`PING`].
pub const ACK: u8 = 1;
/// Flag of [`DATA`] and [`HEADERS`]: the last of its stream.
pub const END_STREAM: u8 = 1;
/// Flag of [`HEADERS`] and [`CONTINUATION`]: the head is whole.
pub const END_HEADERS: u8 = 4;

/// What a client says before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
///
/// # Panics
///
/// Where the payload is longer than a frame can be.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 1 << 24, "{} bytes do not go into a frame", payload.len());
    let length = payload.len().to_be_bytes();
    [&length[length.len() - 3..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client begins with: its preface and settings that change nothing.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}
