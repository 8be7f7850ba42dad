//! A server that says what it is told to say.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

/// What is asked for to see whether the next one hears its own answer.
pub(super) const AFTER: &str = "/after";

/// A server that waits for the client's end waits no longer: what is missing will never come.
const WAIT: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// The answer to [`AFTER`], as the client hears it.
pub(super) fn after(number: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nx-number: {number}\r\ncontent-length: 5\r\n\r\nafter")
}

/// What is said to a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    pub(super) pieces: [Vec<u8>; 2],
    /// And then the connection ends.
    pub(super) closes: bool,
}

#[derive(Default)]
pub(super) struct Puppet {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Default)]
struct Now {
    script: Script,
    /// Of the script.
    number: u64,
    /// The last one that was said to its end.
    said: u64,
    /// The last one of which the client has what it gets.
    over: u64,
}

impl Puppet {
    /// The next script; its number.
    pub(super) fn next(&self, script: Script) -> u64 {
        let mut now = self.now();
        now.script = script;
        now.number += 1;
        now.number
    }

    /// The client has what it gets. Waits until all of it was said.
    pub(super) fn over(&self, number: u64) {
        let mut now = self.now();
        now.over = number;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(now, PATIENCE, |now| now.said < number);
        let (now, _) = waited.expect("nothing panics and goes on");
        assert!(now.said >= number, "the request did not come to the server");
    }

    pub(super) fn serve(self: &Arc<Self>, listener: &TcpListener) {
        for socket in listener.incoming().flatten() {
            let puppet = Arc::clone(self);
            std::thread::spawn(move || {
                // The proxy may end the connection at any place.
                let _ = puppet.while_there(socket);
            });
        }
    }

    fn while_there(&self, socket: TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let (script, number) = {
                let now = self.now();
                (now.script.clone(), now.number)
            };
            if head.split(' ').nth(1) == Some(AFTER) {
                reader.get_mut().write_all(after(number).as_bytes())?;
                continue;
            }
            let said = script.pieces.iter().try_for_each(|piece| reader.get_mut().write_all(piece));
            self.now().said = number;
            self.changed.notify_all();
            said?;
            if script.closes {
                return Ok(());
            }
            let waited = self.changed.wait_timeout_while(self.now(), WAIT, |now| now.over < number);
            let is_over = waited.expect("nothing panics and goes on").0.over >= number;
            if !is_over {
                return Ok(());
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("nothing panics and goes on")
    }
}
