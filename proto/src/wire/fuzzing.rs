//! Reads bytes as each message that one of our processes reads from another: for the fuzz target `messages`, which has no
//! other way to the wire types. Panics where a message that was understood does not survive being written and read again.

use prost::Message as _;

use super::{Read, read_controller};
use crate::{
    config::ProxyMessage,
    tap::{TapEvent, TapFilter},
    trust::TrustBundle,
};

/// As each of them.
pub fn read_messages(bytes: &[u8]) {
    if let Ok(message) = super::ControllerMessage::decode(bytes)
        && let Ok(Read::Message(message)) = read_controller(message)
    {
        let again = super::ControllerMessage::from(message.clone()).encode_to_vec();
        let again = super::ControllerMessage::decode(&again[..]).map(read_controller);
        assert_eq!(again, Ok(Ok(Read::Message(message))));
    }
    survives::<super::ProxyMessage, ProxyMessage>(bytes);
    survives::<super::TapRequest, TapFilter>(bytes);
    survives::<super::TapEvent, TapEvent>(bytes);
    survives::<super::TrustBundle, TrustBundle>(bytes);
}

fn survives<W, D>(bytes: &[u8])
where
    W: prost::Message + Default + From<D> + TryInto<D, Error = super::WireError>,
    D: Clone + PartialEq + std::fmt::Debug,
{
    let Ok(Ok(message)) = W::decode(bytes).map(<W as TryInto<D>>::try_into) else { return };
    let again = W::decode(&W::from(message.clone()).encode_to_vec()[..]).map(<W as TryInto<D>>::try_into);
    assert_eq!(again, Ok(Ok(message)));
}
