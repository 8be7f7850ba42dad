//! Opaque connections: who ends, and when. (Megabytes by hash are in `bytes`.)

use mesh_proto::workload::Protocol;

use super::{
    dialogue::{
        Step::{self, App, AppEnds, AppSees, AppSeesEnd, Client, ClientEnds, ClientPauses, ClientSees, ClientSeesEnd},
        play,
    },
    stage::Stage,
};

const TABLE: &[(&str, &[Step])] = &[
    (
        "a client that ends first still reads",
        &[
            Client("*1\r\n$4\r\nQUIT\r\n"),
            AppSees("*1\r\n$4\r\nQUIT\r\n"),
            ClientEnds,
            AppSeesEnd,
            App("+OK\r\n"),
            App("late"),
            ClientSees("+OK\r\nlate"),
            AppEnds,
            ClientSeesEnd,
        ],
    ),
    (
        "an application that ends first still reads",
        &[
            Client("*1\r\n"),
            AppSees("*1\r\n"),
            App("bye"),
            AppEnds,
            ClientSees("bye"),
            ClientSeesEnd,
            Client("after"),
            AppSees("after"),
            ClientEnds,
            AppSeesEnd,
        ],
    ),
    (
        "an application that speaks first",
        &[
            App("220 ready\r\n"),
            ClientSees("220 ready\r\n"),
            Client("EHLO a\r\n"),
            AppSees("EHLO a\r\n"),
            App("250 a\r\n"),
            ClientSees("250 a\r\n"),
            ClientEnds,
            AppSeesEnd,
            AppEnds,
            ClientSeesEnd,
        ],
    ),
    (
        "an application that ends before anybody has spoken",
        &[AppEnds, ClientSeesEnd, Client("*1\r\n"), AppSees("*1\r\n"), ClientEnds, AppSeesEnd],
    ),
    (
        "a client that pauses in the middle of a word",
        &[
            Client("*1\r\n$4\r\nQU"),
            AppSees("*1\r\n$4\r\nQU"),
            ClientPauses,
            Client("IT\r\n"),
            AppSees("IT\r\n"),
            App("+OK\r\n"),
            ClientSees("+OK\r\n"),
            ClientEnds,
            AppSeesEnd,
        ],
    ),
    (
        "bytes that begin like HTTP and are none",
        &[Client("GET key\r\n"), AppSees("GET key\r\n"), App("1"), ClientSees("1"), ClientEnds, AppSeesEnd],
    ),
];

pub(crate) async fn each_side_of_an_opaque_connection_ends_on_its_own(stage: &impl Stage) {
    for ip in stage.families() {
        for protocol in [Protocol::Opaque, Protocol::Detect] {
            for (what, steps) in TABLE {
                play(stage, what, protocol, ip, steps).await;
            }
        }
    }
}
