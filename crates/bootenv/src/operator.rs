//! Whoever stands in front of the machine, or sits behind its serial port: keys, questions and their answers.
//!
//! Every console is read; whoever answers first is heard. Nothing restarts the machine or switches it
//! off without a `yes`, and no controller without a pin gets anything without one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::configuration::parse_controller;
use crate::console::{echo, open_console, serial_ports};
use crate::keys::{Decoder, Key};
use crate::status::{Question, Status};

const ANSWER_LENGTH_MAX: usize = 200;
/// The bytes of one key follow each other within this.
const SEQUENCE_PAUSE: Duration = Duration::from_millis(200);

/// What comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key on the console of this number.
    Key(usize, Key),
    /// Control, Alt and Delete on a keyboard.
    ControlAltDelete,
    /// The agent wants to know whether the controller shows this code; `None`: no longer.
    Confirmation(Option<String>),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// Connect to this controller.
    Controller(String),
    /// The controller shows this code: go on with it.
    Confirmed(String),
    /// The controller does not show this code: leave it.
    Denied(String),
    /// Restart the machine.
    Restart,
    /// Switch the machine off.
    PowerOff,
    /// Stay in the boot image, whatever its deadline.
    Stay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Controller,
    Restart,
    PowerOff,
    Stay,
    Confirmation,
}

/// The conversation: pure, from inputs to outcomes.
#[derive(Debug, Default)]
pub struct Dialog {
    /// Asked by whoever stands there.
    asked: Option<Asked>,
    /// A code that waits for an answer whenever nothing else is asked.
    code: Option<String>,
    complaint: String,
    /// What was typed on each console.
    typed: Vec<String>,
    last: usize,
}

impl Dialog {
    /// Asks for the controller.
    pub fn ask_controller(&mut self) {
        self.ask(Asked::Controller);
    }

    /// Asks whether the machine shall be restarted.
    pub fn ask_restart(&mut self) {
        self.ask(Asked::Restart);
    }

    /// Asks whether the machine shall be switched off.
    pub fn ask_power_off(&mut self) {
        self.ask(Asked::PowerOff);
    }

    /// Asks whether the machine shall stay in the boot image.
    pub fn ask_stay(&mut self) {
        self.ask(Asked::Stay);
    }

    /// Takes back the question for the controller: it was given elsewhere.
    pub fn forget_controller(&mut self) {
        if self.asked == Some(Asked::Controller) {
            self.end_question();
        }
    }

    fn ask(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.begin_question();
    }

    /// What was typed in answer to another question is none to this one.
    fn begin_question(&mut self) {
        self.complaint.clear();
        self.typed.iter_mut().for_each(String::clear);
    }

    fn end_question(&mut self) {
        self.asked = None;
        self.begin_question();
    }

    fn asked(&self) -> Option<Asked> {
        self.asked.or(self.code.as_ref().map(|_| Asked::Confirmation))
    }

    /// The question as it stands, for the screen.
    pub fn question(&self) -> Option<Question> {
        let text = match self.asked()? {
            Asked::Controller => "Controller (HOST:PORT):".into(),
            Asked::Restart => "Restart this machine? A copy in progress stops. Type yes:".into(),
            Asked::PowerOff => "Switch this machine off? A copy in progress stops. Type yes:".into(),
            Asked::Stay => "Stay here until somebody restarts this machine? Type yes:".into(),
            Asked::Confirmation => {
                let code = self.code.as_deref().unwrap_or_default();
                format!("Does the controller's operator see the code {code}? yes / no:")
            }
        };
        let typed = self.typed.get(self.last).cloned().unwrap_or_default();
        Some(Question { text, complaint: self.complaint.clone(), typed })
    }

    /// Takes an input.
    pub fn take(&mut self, input: Input) -> Outcome {
        match input {
            Input::ControlAltDelete => {
                self.ask(Asked::Restart);
                Outcome::Nothing
            }
            Input::Confirmation(code) => {
                if self.code != code && self.asked.is_none() {
                    self.begin_question();
                }
                self.code = code;
                Outcome::Nothing
            }
            Input::Key(console, key) => self.key(console.min(63), key),
        }
    }

    fn key(&mut self, console: usize, key: Key) -> Outcome {
        if self.typed.len() <= console {
            self.typed.resize(console + 1, String::new());
        }
        let Some(asked) = self.asked() else {
            match key {
                Key::Character('r' | 'R') => self.ask(Asked::Restart),
                Key::Character('p' | 'P') => self.ask(Asked::PowerOff),
                Key::Character('c' | 'C') => self.ask(Asked::Controller),
                _ => {}
            }
            return Outcome::Nothing;
        };
        self.last = console;
        let typed = &mut self.typed[console];
        match key {
            Key::Enter => return self.answer(asked, console),
            Key::Backspace => drop(typed.pop()),
            Key::Clear => typed.clear(),
            Key::Character(character) if typed.len() < ANSWER_LENGTH_MAX => typed.push(character),
            _ => {}
        }
        Outcome::Nothing
    }

    fn answer(&mut self, asked: Asked, console: usize) -> Outcome {
        let typed = std::mem::take(&mut self.typed[console]);
        match asked {
            Asked::Confirmation => self.answer_confirmation(&typed),
            Asked::Restart | Asked::PowerOff | Asked::Stay => {
                self.end_question();
                match (typed.trim().eq_ignore_ascii_case("yes"), asked) {
                    (true, Asked::Restart) => Outcome::Restart,
                    (true, Asked::Stay) => Outcome::Stay,
                    (true, _) => Outcome::PowerOff,
                    (false, _) => Outcome::Nothing,
                }
            }
            // An empty line keeps the controller there is; without one the question comes again.
            Asked::Controller if typed.trim().is_empty() => {
                self.end_question();
                Outcome::Nothing
            }
            Asked::Controller => match parse_controller(&typed) {
                Ok(controller) => {
                    self.end_question();
                    Outcome::Controller(controller)
                }
                Err(error) => {
                    self.complaint = error.context;
                    Outcome::Nothing
                }
            },
        }
    }

    fn answer_confirmation(&mut self, typed: &str) -> Outcome {
        let typed = typed.trim();
        let (yes, no) = (typed.eq_ignore_ascii_case("yes"), typed.eq_ignore_ascii_case("no"));
        if !yes && !no {
            self.complaint = "Please type yes or no; `vconverter machines approve` says which code it approved".into();
            return Outcome::Nothing;
        }
        self.complaint.clear();
        match self.code.take() {
            Some(code) if yes => Outcome::Confirmed(code),
            Some(code) => {
                self.ask(Asked::Controller);
                self.complaint =
                    format!("The controller that was to show {code} is left. Another one, or the right address?");
                Outcome::Denied(code)
            }
            None => Outcome::Nothing,
        }
    }
}

/// Reads all consoles, the keyboard's Control-Alt-Delete and the agent's wish for a confirmation from now on.
pub fn listen(status: &Arc<Status>) -> Receiver<Input> {
    let (inputs, receiver) = channel();
    {
        let (inputs, status) = (inputs.clone(), Arc::clone(status));
        std::thread::spawn(move || watch_confirmation(&status, &inputs));
    }
    let consoles = std::iter::once(PathBuf::from("/dev/tty0")).chain(serial_ports());
    for (number, path) in consoles.enumerate() {
        let (inputs, status) = (inputs.clone(), Arc::clone(status));
        std::thread::spawn(move || read_keys(&path, number, &inputs, &status));
    }
    std::thread::spawn(move || watch_control_alt_delete(&inputs));
    receiver
}

fn watch_confirmation(status: &Status, inputs: &Sender<Input>) {
    let (mut seen, mut last) = (0, None);
    loop {
        let (number, picture) = status.wait(seen, Duration::from_secs(60));
        seen = number;
        let code = picture.agent.wants_confirmation().map(str::to_owned);
        if code != last {
            last.clone_from(&code);
            if inputs.send(Input::Confirmation(code)).is_err() {
                return;
            }
        }
    }
}

fn read_keys(path: &Path, number: usize, inputs: &Sender<Input>, status: &Status) {
    let Ok(mut console) = open_console(path) else { return };
    let mut decoder = Decoder::default();
    let mut byte = [0];
    loop {
        let key = if decoder.is_waiting() && !is_readable(&console) {
            decoder.pause()
        } else {
            match console.read(&mut byte) {
                Ok(1) => decoder.take(byte[0]),
                // A port without anyone, or one that hung up: not a reason to spin.
                _ => {
                    std::thread::sleep(Duration::from_secs(1));
                    None
                }
            }
        };
        let Some(key) = key else { continue };
        // A screen shows itself what is typed into it.
        let echoes = number > 0 && status.picture().shown.is_none();
        if inputs.send(Input::Key(number, key)).is_err() {
            return;
        }
        if echoes {
            echo_key(key);
        }
    }
}

/// Whether a byte comes within the time that a terminal, or a slow line, takes for the rest of a sequence.
fn is_readable(console: &File) -> bool {
    let pause = Timespec { tv_sec: 0, tv_nsec: SEQUENCE_PAUSE.subsec_nanos().into() };
    let mut descriptors = [PollFd::new(console, PollFlags::IN)];
    poll(&mut descriptors, Some(&pause)).is_ok_and(|ready| ready > 0)
}

fn echo_key(key: Key) {
    match key {
        Key::Character(character) => echo(&character.to_string()),
        Key::Enter => echo("\r\n"),
        Key::Backspace => echo("\u{8} \u{8}"),
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
        let mut decoder = Decoder::default();
        let keys = text.bytes().filter_map(|byte| decoder.take(byte));
        keys.map(|key| dialog.take(Input::Key(console, key))).last().unwrap()
    }

    #[test]
    fn a_machine_stays_only_after_a_yes() {
        let type_in = |dialog: &mut Dialog, text: &str| {
            text.chars().for_each(|c| drop(dialog.take(Input::Key(1, Key::Character(c)))));
            dialog.take(Input::Key(1, Key::Enter))
        };
        for (answer, expected) in [("yes", Outcome::Stay), ("", Outcome::Nothing), ("s", Outcome::Nothing)] {
            let mut dialog = Dialog::default();
            dialog.ask_stay();
            assert!(dialog.question().unwrap().text.starts_with("Stay here"));
            assert_eq!(type_in(&mut dialog, answer), expected, "{answer:?}");
            assert_eq!(dialog.question(), None);
        }
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
        assert_eq!(type_in(&mut dialog, 0, "p\r"), Outcome::Nothing);
        assert_eq!(type_in(&mut dialog, 0, "pyes\r"), Outcome::PowerOff);
    }

    const CODE: &str = "7Q4K-9XZM";

    fn asked_to_confirm() -> Dialog {
        let mut dialog = Dialog::default();
        dialog.take(Input::Confirmation(Some(CODE.into())));
        let question = dialog.question().unwrap();
        assert_eq!(question.text, "Does the controller's operator see the code 7Q4K-9XZM? yes / no:");
        dialog
    }

    #[test]
    fn only_yes_confirms_a_code() {
        let mut dialog = asked_to_confirm();
        for other in ["\r", "y\r", "r\r", "yes no\r", "7Q4K-9XZM\r"] {
            assert_eq!(type_in(&mut dialog, 0, other), Outcome::Nothing, "{other:?}");
            assert!(dialog.question().unwrap().complaint.contains("yes or no"));
        }
        assert_eq!(type_in(&mut dialog, 1, " Yes \r"), Outcome::Confirmed(CODE.into()));
        assert_eq!(dialog.question(), None);
    }

    #[test]
    fn no_leaves_the_controller_and_asks_for_another() {
        let mut dialog = asked_to_confirm();
        assert_eq!(type_in(&mut dialog, 0, "no\r"), Outcome::Denied(CODE.into()));
        let question = dialog.question().unwrap();
        assert!(question.text.starts_with("Controller") && question.complaint.contains("is left"), "{question:?}");
        // The agent's question goes with its connection.
        dialog.take(Input::Confirmation(None));
        assert_eq!(type_in(&mut dialog, 0, "host:1\r"), Outcome::Controller("host:1".into()));
    }

    #[test]
    fn an_answer_is_to_the_code_that_was_asked_for() {
        let mut dialog = asked_to_confirm();
        type_in(&mut dialog, 0, "yes");
        dialog.take(Input::Confirmation(Some("0000-0000".into())));
        assert_eq!(type_in(&mut dialog, 0, "\r"), Outcome::Nothing);
        assert_eq!(type_in(&mut dialog, 0, "yes\r"), Outcome::Confirmed("0000-0000".into()));
        // Nor does it answer a question that came in between.
        let mut dialog = asked_to_confirm();
        type_in(&mut dialog, 0, "yes");
        dialog.take(Input::ControlAltDelete);
        assert_eq!(type_in(&mut dialog, 0, "\r"), Outcome::Nothing);
        assert!(dialog.question().unwrap().text.contains(CODE));
    }

    #[test]
    fn a_question_that_is_being_answered_is_not_interrupted() {
        let mut dialog = Dialog::default();
        dialog.ask_controller();
        type_in(&mut dialog, 0, "hos");
        dialog.take(Input::Confirmation(Some(CODE.into())));
        assert_eq!(type_in(&mut dialog, 0, "t:1\r"), Outcome::Controller("host:1".into()));
        dialog.take(Input::Confirmation(None));
        assert_eq!(dialog.question(), None);
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
