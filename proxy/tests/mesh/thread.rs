//! The thin thread itself.

use mesh_proto::{
    identity::Identity,
    tap::{Direction, TapEvent},
};
use mesh_testbed::{
    member::Pod,
    talk::{Lines, get},
};

use crate::{WEB, http, lines, mesh, settings};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/web";

pub(crate) fn a_request_and_a_connection_go_by_service_over_mutual_tls() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let (at_client, at_server) = (client.tap()?, server.tap()?);

    let answer = client.run(|| get(http(WEB), "/hello", &[]))??;
    assert_eq!((answer.status, answer.body.as_str()), (200, "a"));
    let (mut connection, greeting) = client.run(|| Lines::connect(lines(WEB)))??;
    assert_eq!(greeting, "220 a");
    assert_eq!(connection.ask("QTY 7")?, "QTY 7");
    drop(connection);

    for (tap, direction) in [(&at_client, Direction::Outbound), (&at_server, Direction::Inbound)] {
        for is_request in [true, false] {
            let what = format!("{direction:?}, request: {is_request}");
            let event =
                tap.find(&what, |event| event.direction == direction && event.request.is_some() == is_request)?;
            assert_eq!(identities(&event), (Some(CLIENT), Some(SERVER)), "{event:?}");
            assert!(event.tls && event.outcome.is_empty(), "{event:?}");
        }
    }
    let to_service = [r#"direction="outbound""#, r#"dst_service="web""#, r#"tls="true""#];
    assert_eq!(client.count("request_total", &to_service)?, 1);
    assert_eq!(client.count("tcp_open_total", &to_service)?, 1);
    let from_client = [r#"direction="inbound""#, &format!("client_id={CLIENT:?}"), r#"tls="true""#];
    assert_eq!(server.count("request_total", &from_client)?, 1);
    assert_eq!(server.count("tcp_open_total", &from_client)?, 1);
    assert_eq!(server.count("request_total", &[r#"tls="false""#])?, 0);
    Ok(())
}

fn identities(event: &TapEvent) -> (Option<&str>, Option<&str>) {
    (event.source_identity.as_ref().map(Identity::as_str), event.destination_identity.as_ref().map(Identity::as_str))
}
