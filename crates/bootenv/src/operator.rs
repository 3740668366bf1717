//! Whoever stands in front of the machine, or sits behind its serial port: keys, questions and their answers.
//!
//! Every console is read; whoever answers first is heard. Nothing restarts the machine without a `yes`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::configuration::parse_controller;
use crate::console::{echo, open_console, serial_ports};
use crate::status::Question;

const ANSWER_LENGTH_MAX: usize = 200;

/// What comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key on the console of this number.
    Key(usize, u8),
    /// Control, Alt and Delete on a keyboard.
    ControlAltDelete,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// Connect to this controller.
    Controller(String),
    /// Restart the machine.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Controller,
    Restart,
}

/// The conversation: pure, from inputs to outcomes.
#[derive(Debug, Default)]
pub struct Dialog {
    asked: Option<Asked>,
    complaint: String,
    /// What was typed on each console.
    typed: Vec<String>,
    /// Consoles in the middle of an escape sequence (arrow keys).
    escaped: Vec<bool>,
    last: usize,
}

impl Dialog {
    /// Asks for the controller.
    pub fn ask_controller(&mut self) {
        self.ask(Asked::Controller);
    }

    fn ask(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.complaint.clear();
        self.typed.iter_mut().for_each(String::clear);
    }

    /// The question as it stands, for the screen.
    pub fn question(&self) -> Option<Question> {
        let text = match self.asked? {
            Asked::Controller => "Controller (HOST:PORT):",
            Asked::Restart => "Restart this machine? A copy in progress stops. Type yes:",
        };
        let typed = self.typed.get(self.last).cloned().unwrap_or_default();
        Some(Question { text: text.into(), complaint: self.complaint.clone(), typed })
    }

    /// Takes an input.
    pub fn take(&mut self, input: Input) -> Outcome {
        match input {
            Input::ControlAltDelete => {
                self.ask(Asked::Restart);
                Outcome::Nothing
            }
            Input::Key(console, byte) => self.key(console.min(63), byte),
        }
    }

    fn key(&mut self, console: usize, byte: u8) -> Outcome {
        if self.typed.len() <= console {
            self.typed.resize(console + 1, String::new());
            self.escaped.resize(console + 1, false);
        }
        if self.escaped[console] {
            self.escaped[console] = !byte.is_ascii_alphabetic() && byte != b'~';
            return Outcome::Nothing;
        }
        let Some(asked) = self.asked else {
            match byte {
                b'r' | b'R' => self.ask(Asked::Restart),
                b'c' | b'C' => self.ask(Asked::Controller),
                _ => {}
            }
            return Outcome::Nothing;
        };
        self.last = console;
        let typed = &mut self.typed[console];
        match byte {
            b'\r' | b'\n' => return self.answer(asked, console),
            8 | 127 => drop(typed.pop()),
            21 => typed.clear(),
            27 => self.escaped[console] = true,
            b' '..=b'~' if typed.len() < ANSWER_LENGTH_MAX => typed.push(char::from(byte)),
            _ => {}
        }
        Outcome::Nothing
    }

    fn answer(&mut self, asked: Asked, console: usize) -> Outcome {
        let typed = std::mem::take(&mut self.typed[console]);
        match asked {
            Asked::Restart => {
                self.asked = None;
                if typed.trim().eq_ignore_ascii_case("yes") { Outcome::Restart } else { Outcome::Nothing }
            }
            // An empty line keeps the controller there is; without one the question comes again.
            Asked::Controller if typed.trim().is_empty() => {
                self.asked = None;
                Outcome::Nothing
            }
            Asked::Controller => match parse_controller(&typed) {
                Ok(controller) => {
                    self.asked = None;
                    Outcome::Controller(controller)
                }
                Err(error) => {
                    self.complaint = error.context;
                    Outcome::Nothing
                }
            },
        }
    }
}

/// Reads all consoles and the keyboard's Control-Alt-Delete from now on.
pub fn listen() -> Receiver<Input> {
    let (inputs, receiver) = channel();
    let consoles = std::iter::once(PathBuf::from("/dev/tty0")).chain(serial_ports());
    for (number, path) in consoles.enumerate() {
        let inputs = inputs.clone();
        std::thread::spawn(move || read_keys(&path, number, &inputs));
    }
    std::thread::spawn(move || watch_control_alt_delete(&inputs));
    receiver
}

fn read_keys(path: &Path, number: usize, inputs: &Sender<Input>) {
    let Ok(mut console) = open_console(path) else { return };
    let mut byte = [0];
    loop {
        match console.read(&mut byte) {
            Ok(1) => {
                if inputs.send(Input::Key(number, byte[0])).is_err() {
                    return;
                }
                if number > 0 {
                    echo_key(byte[0]);
                }
            }
            // A port without anyone, or one that hung up: not a reason to spin.
            _ => std::thread::sleep(std::time::Duration::from_secs(1)),
        }
    }
}

fn echo_key(byte: u8) {
    match byte {
        b' '..=b'~' => echo(&char::from(byte).to_string()),
        b'\r' | b'\n' => echo("\r\n"),
        8 | 127 => echo("\u{8} \u{8}"),
        _ => {}
    }
}

/// The kernel sends PID 1 SIGINT for Control-Alt-Delete once it is told not to restart at once.
#[allow(unsafe_code)]
fn watch_control_alt_delete(inputs: &Sender<Input>) {
    // SAFETY: plain system call without pointers.
    unsafe { libc::reboot(libc::RB_DISABLE_CAD) };
    loop {
        // SAFETY: all-zero bytes are a valid sigset_t, and sigemptyset initialises it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut signal = 0;
        // SAFETY: the set and the number live until the call returns.
        let waited = unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigwait(&raw const set, &raw mut signal)
        };
        if waited == 0 && signal == libc::SIGINT && inputs.send(Input::ControlAltDelete).is_err() {
            return;
        }
    }
}

/// Keeps SIGINT from ending anything, in this thread and those that it starts; before any other thread is started.
#[allow(unsafe_code)]
pub fn block_interrupts() {
    // SAFETY: all-zero bytes are a valid sigset_t, and sigemptyset initialises it; it lives until the calls return.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(dialog: &mut Dialog, console: usize, text: &str) -> Outcome {
        text.bytes().map(|byte| dialog.take(Input::Key(console, byte))).last().unwrap()
    }

    #[test]
    fn the_console_that_answers_first_is_heard() {
        let mut dialog = Dialog::default();
        dialog.ask_controller();
        type_in(&mut dialog, 0, "half of an ans");
        assert_eq!(type_in(&mut dialog, 1, "192.0.2.1:8443\r"), Outcome::Controller("192.0.2.1:8443".into()));
        assert_eq!(dialog.question(), None);
    }

    #[test]
    fn a_wrong_answer_is_told_and_asked_again() {
        let mut dialog = Dialog::default();
        dialog.ask_controller();
        assert_eq!(type_in(&mut dialog, 0, "nowhere\r"), Outcome::Nothing);
        assert!(dialog.question().unwrap().complaint.contains("HOST:PORT"));
        assert_eq!(type_in(&mut dialog, 0, "hosx\u{7f}t:1\r"), Outcome::Controller("host:1".into()));
    }

    #[test]
    fn nothing_restarts_without_a_yes() {
        let mut dialog = Dialog::default();
        dialog.take(Input::ControlAltDelete);
        assert!(dialog.question().unwrap().text.starts_with("Restart"));
        assert_eq!(type_in(&mut dialog, 0, "y\r"), Outcome::Nothing);
        assert_eq!(dialog.question(), None);
        assert_eq!(type_in(&mut dialog, 0, "ryes\r"), Outcome::Restart);
    }

    #[test]
    fn arrow_keys_type_nothing() {
        let mut dialog = Dialog::default();
        dialog.ask_controller();
        type_in(&mut dialog, 0, "a\x1b[A\x1b[3~b");
        assert_eq!(dialog.question().unwrap().typed, "ab");
    }

    #[test]
    fn an_answer_has_an_end() {
        let mut dialog = Dialog::default();
        dialog.ask_controller();
        type_in(&mut dialog, 0, &"x".repeat(10_000));
        assert_eq!(dialog.question().unwrap().typed.len(), ANSWER_LENGTH_MAX);
    }
}
