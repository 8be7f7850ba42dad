//! The real program on a terminal of some width, and what a person sees there.

use std::{
    fs::File,
    io::Read as _,
    num::NonZeroU16,
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
    pty::{OpenptyResult, Winsize, openpty},
};
use vt100::{Color, Parser};

/// Higher than any output of ours: nothing scrolls away.
const ROWS: u16 = 200;
/// Milliseconds after which the program itself is looked at.
const LOOK: u16 = 50;

/// A program on a terminal.
pub(crate) struct Terminal {
    child: Child,
    screen: File,
    seen: Vec<u8>,
    columns: u16,
}

/// What was on the screen in the end.
pub(crate) struct Seen {
    pub(crate) exit: i32,
    /// Every line that is not empty at the end of the screen, as it stands there.
    pub(crate) text: String,
    /// Lines that the terminal had to break.
    pub(crate) broken: Vec<String>,
    /// Whether anything has a colour.
    pub(crate) colored: bool,
    /// All that was written, orders to the terminal included.
    pub(crate) written: String,
}

impl Terminal {
    /// Starts the program. `TERM` is what the command says, else that of a usual terminal.
    pub(crate) fn start(mut command: Command, columns: u16) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        for end in [&master, &slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let slave = || Stdio::from(slave.try_clone().unwrap());
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let child = command.spawn().unwrap();
        // The command holds the other end too, and would keep the terminal open.
        drop(command);
        Self { child, screen: File::from(master), seen: Vec::new(), columns }
    }

    /// Process id of the program.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Reads until these words were written.
    pub(crate) fn until(&mut self, words: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(words) {
            assert!(self.read(), "it ended without {words:?}: {}", String::from_utf8_lossy(&self.seen));
        }
    }

    /// Waits for the end of the program.
    pub(crate) fn end(mut self) -> Seen {
        while self.read() {}
        let exit = self.child.wait().unwrap().code().unwrap();
        let number = |number| NonZeroU16::new(number).unwrap();
        let mut parser = Parser::new(number(ROWS), number(self.columns), 0);
        parser.process(&self.seen);
        let screen = parser.screen();
        let rows: Vec<String> = screen.rows(0, self.columns).map(|row| row.trim_end().to_owned()).collect();
        let broken =
            (0..ROWS).filter(|row| screen.row_wrapped(*row)).map(|row| rows[usize::from(row)].clone()).collect();
        let is_colored = |row, column| screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != Color::Default);
        let colored = (0..ROWS).any(|row| (0..self.columns).any(|column| is_colored(row, column)));
        let text = rows.join("\n").trim_end().to_owned() + "\n";
        Seen { exit, text, broken, colored, written: String::from_utf8_lossy(&self.seen).into_owned() }
    }

    /// Whether there was more. A process that goes on in the background may hold the terminal open: that the program has
    /// ended and nothing is left to read is the end.
    fn read(&mut self) -> bool {
        loop {
            let ended = self.child.try_wait().unwrap().is_some();
            let mut ready = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, LOOK).unwrap() > 0 {
                break;
            }
            if ended {
                return false;
            }
        }
        let mut buffer = [0; 4096];
        // EIO: nobody has the terminal open any more.
        let Ok(size) = self.screen.read(&mut buffer) else { return false };
        self.seen.extend_from_slice(&buffer[..size]);
        size > 0
    }
}
