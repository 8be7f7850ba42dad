//! Certificate requests, as whoever holds a token may send them: a certificate is for the identity that was proved, whatever
//! the request says.
#![no_main]

use std::{cell::OnceCell, time::Duration};

use libfuzzer_sys::fuzz_target;
use mesh_controller::ca::{Authority, issuer::identity_of};
use mesh_fuzz::scratch;
use mesh_proto::{client::Certify, identity::Identity};

thread_local! {
    static AUTHORITY: OnceCell<Authority> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("it is an identity");
    let certify = Certify { token: String::new(), identity: identity.clone(), csr: data.to_vec().into() };
    AUTHORITY.with(|authority| {
        let day = Duration::from_secs(86_400);
        let open = || Authority::open(&scratch("ca"), None, "cluster.local", day).expect("a directory of our own");
        if let Ok(certified) = authority.get_or_init(open).sign(&certify) {
            assert_eq!(identity_of(&certified.chain[0]), Ok(identity));
        }
    });
});
