//! A process in a namespace whose output is kept and whose life ends with the value: for tests that start a binary and
//! wait for what it prints.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};

use crate::namespace::Namespace;

/// Most output kept, in bytes; older lines go first.
const OUTPUT_LIMIT: usize = 1 << 20;

/// A running process; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Output>,
}

/// Standard output and standard error, line by line as they came.
#[derive(Debug, Default)]
struct Output {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    text: String,
    /// Streams at their end; 2 means that the process (and who inherited its output) is done printing.
    ended: u8,
}

impl Process {
    /// Starts `command` in `namespace`, with no input.
    pub fn start(namespace: &Namespace, command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(command)?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            output.clone().read(stdout)?;
        }
        if let Some(stderr) = child.stderr.take() {
            output.clone().read(stderr)?;
        }
        Ok(Self { child, output })
    }

    /// Process id, as this process sees it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        self.output.kept.lock().text.clone()
    }

    /// Waits until some line of the output contains `text`, and returns that line. The error (timeout, or the process
    /// stopped printing) carries all the output.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> io::Result<String> {
        let found = |kept: &Kept| kept.text.lines().find(|line| line.contains(text)).map(str::to_owned);
        let mut kept = self.output.kept.lock();
        self.output.changed.wait_while_for(&mut kept, |kept| found(kept).is_none() && kept.ended < 2, timeout);
        found(&kept).ok_or_else(|| {
            let why = if kept.ended < 2 { "within the time" } else { "before its output ended" };
            io::Error::new(io::ErrorKind::TimedOut, format!("no line with {text:?} {why}; output:\n{}", kept.text))
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Copies a stream to the end, on a thread that ends with it.
    fn read(self: Arc<Self>, stream: impl Read + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name("output".into()).spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            // An unreadable pipe is an ended one.
            while matches!((&mut lines).take(OUTPUT_LIMIT as u64).read_until(b'\n', &mut line), Ok(1..)) {
                self.kept.lock().push(&String::from_utf8_lossy(&line));
                self.changed.notify_all();
                line.clear();
            }
            self.kept.lock().ended += 1;
            self.changed.notify_all();
        })?;
        Ok(())
    }
}

impl Kept {
    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        while self.text.len() > OUTPUT_LIMIT {
            let first = self.text.find('\n').map_or(self.text.len(), |end| end + 1);
            self.text.drain(..first);
        }
    }
}
