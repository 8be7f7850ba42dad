//! Calls: requests of HTTP/2 between two proxies, on the channels of a connection that requests share, one after the other.
//!
//! Between proxies that trust each other's code there is no need to say a request as HTTP/2 does: heads are written as lists of
//! fields, uncompressed, bodies as they come, and the channel has the flow control. What costs half of a short call, HTTP/2 twice
//! more, is saved. `client` sends by [`ask`], `inbound` serves by [`serve`]; towards applications it is HTTP/2 as ever. A call
//! that is given up gives up its channel, with the code of HTTP/2. [`message`] is what is on the wire.

mod ask;
pub mod fuzzing;
mod incoming;
mod line;
mod message;
mod sending;
mod serve;

pub(crate) use self::{
    ask::{Failure, ask},
    incoming::Incoming,
    serve::serve,
};

#[cfg(test)]
mod tests;
