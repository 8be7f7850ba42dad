//! Join tokens, as a stranger may send them: none is accepted that was not signed.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use mesh_controller::ca::token::Checker;
use mesh_fuzz::scratch;

thread_local! {
    static CHECKER: OnceCell<Checker> = const { OnceCell::new() };
}

fuzz_target!(|token: &str| {
    CHECKER.with(|checker| {
        let open = || Checker::open(&scratch("tokens")).expect("a directory of our own");
        assert!(checker.get_or_init(open).check(token).is_err());
    });
});
