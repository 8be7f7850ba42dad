//! Labels and annotations of pods and namespaces, and the small languages in them: one `key=value` a line, those after an empty
//! line are the pod's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_injector::settings;
use mesh_proto::{
    identity::Identity,
    path,
    ports::{PortSet, Subnets},
    probe,
};

fuzz_target!(|text: &str| {
    let (namespace, pod) = text.split_once("\n\n").unwrap_or((text, ""));
    let pairs = |text| str::lines(text).filter_map(|line| line.split_once('='));
    let (mut settings, _warnings) = settings::read(pairs(namespace), pairs(pod));
    let _ = settings.fit(Some(30));
    for (_, value) in settings.proxy_env().chain(settings.redirect_env()) {
        assert!(!value.contains('\0'), "no environment has that: {value:?}");
    }
    for value in text.split(['=', '\n']) {
        if let Ok(ports) = value.parse::<PortSet>() {
            assert_eq!(ports.to_string().parse::<PortSet>().ok(), Some(ports), "{value:?}");
        }
        if let Ok(subnets) = value.parse::<Subnets>() {
            assert_eq!(subnets.to_string().parse::<Subnets>().ok(), Some(subnets), "{value:?}");
        }
        if let Ok(identity) = value.parse::<Identity>() {
            assert_eq!(identity.as_str(), value);
        }
        if let Ok(plain) = path::plain(value) {
            assert_eq!(path::plain(&plain), Ok(plain.clone()), "{value:?}");
        }
        if let Ok(probes) = probe::parse_list(value) {
            assert_eq!(probe::parse_list(&probe::list(&probes)).ok(), Some(probes), "{value:?}");
        }
    }
});
