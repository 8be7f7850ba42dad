//! W3C Trace Context, level 1: the header that tells a request's trace, read strictly and written. Pure.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Flag: the caller may have recorded it.
const SAMPLED: u8 = 1;
/// Length of version 00.
const LENGTH: usize = 55;

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(super) trace: TraceId,
    /// Of whoever sent the request.
    pub(super) span: SpanId,
    pub(super) sampled: bool,
}

impl Context {
    /// Of a new trace.
    pub(super) fn root(sampled: bool) -> Self {
        let trace = TraceId::from_bytes(rand::random::<u128>().max(1).to_be_bytes());
        Self { trace, span: random_span(), sampled }
    }

    /// Of the next span.
    pub(super) fn child(self) -> Self {
        Self { span: random_span(), ..self }
    }

    /// As the client said. None where it said nothing, or nothing that is valid: more than one header, capitals, zeros.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(only), None) = (values.next(), values.next()) else { return None };
        Self::parse(only.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let version = hex::<1>(text.get(..2)?)?[0];
        let fits = match version {
            0 => text.len() == LENGTH,
            0xff => false,
            // A later version may have more parts, which are not for us.
            _ => text.len() == LENGTH || text.get(LENGTH) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace = TraceId::from_bytes(hex(&text[3..35])?);
        let span = SpanId::from_bytes(hex(&text[36..52])?);
        let [flags] = hex(&text[53..55])?;
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self {
            trace,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// For the next proxy or application.
    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("invariant: hexadecimal digits and dashes are a header's value")
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn random_span() -> SpanId {
    SpanId::from_bytes(rand::random::<u64>().max(1).to_be_bytes())
}

/// Exactly `N` bytes as lower-case hexadecimal.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_strictly() {
        let parse = |text: &str| Context::parse(text.as_bytes());
        let good = parse(GOOD).unwrap();
        assert_eq!((good.to_string().as_str(), good.sampled), (GOOD, true));
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        assert!(parse(&GOOD.replace("-01", "-03")).unwrap().sampled, "flags we do not know");
        assert_eq!(parse(&GOOD.replacen("00", "cc", 1)), Some(good), "a later version");
        assert_eq!(parse(&format!("{}-what-else", GOOD.replacen("00", "cc", 1))), Some(good));
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &format!("{}x", GOOD.replacen("00", "cc", 1)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("-01", "-0g"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_headers_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Context::from_headers(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Context::from_headers(&headers), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_bytes_panic(bytes: Vec<u8>, sampled: bool) {
            let root = Context::root(sampled);
            prop_assert_eq!(Context::parse(root.to_string().as_bytes()), Some(root));
            prop_assert_eq!(root.child().trace, root.trace);
            let _ = Context::parse(&bytes);
        }
    }
}
