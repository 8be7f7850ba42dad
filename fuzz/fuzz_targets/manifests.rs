//! Manifests in the controller's directory, from bytes to what proxies are told, and away again. Beginning with `{`, they are
//! JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_controller::{
    compile::{Reads, inbound, outbound},
    index::{Facts, Name},
    source::{
        Object,
        manifest::{Format, parse},
    },
};
use mesh_proto::inbound::DefaultPolicy;

fuzz_target!(|text: &str| {
    let format = if text.starts_with('{') { Format::Json } else { Format::Yaml };
    let manifest = parse(text, format);
    let mut facts = Facts::new("cluster.local");
    let objects: Vec<_> = manifest.objects.iter().map(|(_, object)| object).collect();
    let stand_ins = manifest.mistakes.iter().filter_map(|mistake| mistake.stand_in.as_ref());
    let all: Vec<_> = objects.into_iter().chain(stand_ins).collect();
    for object in &all {
        facts.apply(object);
    }
    let mut reads = Reads::default();
    for object in &all {
        let object_ref = object.object_ref();
        let name = Name::new(&object_ref.namespace, &object_ref.name);
        inbound(&facts, &name, DefaultPolicy::Allow, &mut reads);
        if let Object::Service(_) = &***object
            && let Some(service) = facts.service(&name)
        {
            for ip in &service.ips {
                for port in &service.ports {
                    outbound(&facts, (*ip, port.port).into(), None, &mut reads);
                }
            }
        }
    }
    for object in &all {
        facts.delete(&object.object_ref());
    }
});
