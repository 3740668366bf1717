//! The conversation with whoever stands there: keys go to the screen that is shown or answer the question that is
//! asked, and what they wish is done. The main thread's work.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use rustix::system::RebootCommand;

use crate::agent::{self, Controller};
use crate::configuration::Configuration;
use crate::console::{self, log, recent};
use crate::installation::{self, DriverFile, Outcome as Installed};
use crate::keys::Key;
use crate::network::reachability::{self, Verdict};
use crate::network::settings::{Network, Wanted};
use crate::operator::{self, Dialog, Input, Outcome};
use crate::rescue;
use crate::screens::{Choice, Screens};
use crate::status::{Picture, Reachability, Status};
use crate::stick::{self, Saved};
use crate::{Result, boot_image, deadline, download, media, watchdog};

/// Without an address for so long, the Network Configurator is offered.
const OFFER_AFTER: Duration = Duration::from_secs(25);
/// What new settings need to take effect, before a missing link or address is the answer.
const EFFECT_MAX: Duration = Duration::from_secs(20);
/// The screen is looked after at least so often.
const TICK: Duration = Duration::from_secs(1);
/// Lines of the log that can be scrolled through.
const LOG_LINES: usize = 100;
const ROWS: usize = 24;

/// Answers keys until the machine is restarted or switched off.
pub fn run(configuration: &Configuration, controller: &Controller, wanted: &Arc<Wanted>, status: &Arc<Status>) -> ! {
    let mut conversation = Conversation {
        configuration,
        controller,
        wanted,
        status,
        dialog: Dialog::default(),
        screens: Screens::new(rescue::is_built_in()),
        // Whoever pushed the image knows this machine: no stick that lies in it has a say.
        settled: configuration.push.is_some(),
    };
    match &configuration.controller {
        Some(address) => {
            controller.set(address.clone(), configuration.ca_fingerprint.clone());
            log(format!("controller: {address}, from the configuration"));
            status.update(|picture| picture.controller.clone_from(address));
        }
        None => {
            log("controller: none configured; asking on the screen and on serial ports");
            status.update(|picture| picture.controller = "not known".into());
            conversation.dialog.ask_controller();
        }
    }
    let inputs = operator::listen(status);
    let (started, mut offered) = (Instant::now(), false);
    conversation.show_question(true);
    loop {
        status.sign();
        let before = conversation.question();
        match inputs.recv_timeout(TICK) {
            Ok(input) => conversation.take(input),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
        }
        let picture = status.picture();
        conversation.settled |= picture.agent.is_at_work();
        if let Some(saved) = stick::take_saved() {
            conversation.use_saved(saved);
        }
        if has_address(&picture) {
            conversation.screens.withdraw();
        } else if !offered && !picture.nics.is_empty() && started.elapsed() > OFFER_AFTER {
            offered = true;
            if conversation.screens.is_status() {
                log("network: no address yet; the Network Configurator is on the screen");
                conversation.screens.offer_network(wanted.get().1, &picture);
            }
        }
        conversation.show(before);
    }
}

fn has_address(picture: &Picture) -> bool {
    picture.nics.values().any(|nic| !nic.addresses.is_empty())
}

struct Conversation<'a> {
    configuration: &'a Configuration,
    controller: &'a Controller,
    wanted: &'a Arc<Wanted>,
    status: &'a Arc<Status>,
    dialog: Dialog,
    screens: Screens,
    /// Somebody here said what is to be used, or the controller has work for this machine.
    settled: bool,
}

impl Conversation<'_> {
    fn take(&mut self, input: Input) {
        match input {
            Input::Key(_, key) if !self.screens.is_status() => {
                let choice = self.screens.take(key, &self.wanted.get().1, &self.status.picture());
                self.choose(choice);
            }
            Input::Key(_, Key::Function(1)) => self.screens.open_menu(),
            Input::Key(_, Key::Character('m' | 'M')) if self.dialog.question().is_none() => self.screens.open_menu(),
            // Noise on a serial port is no answer to the question that follows.
            Input::Key(_, Key::Character('s' | 'S'))
                if self.dialog.question().is_none() && self.status.picture().deadline.is_some() =>
            {
                self.dialog.ask_stay();
            }
            input => {
                if !matches!(input, Input::Key(..) | Input::Confirmation(None)) {
                    // What is asked now is asked on the status screen.
                    self.screens.close();
                }
                let outcome = self.dialog.take(input);
                self.answer(outcome);
            }
        }
        if self.dialog.question().is_none() && !self.controller.is_known() {
            self.dialog.ask_controller();
        }
    }

    fn choose(&mut self, choice: Choice) {
        match choice {
            Choice::Nothing => {}
            Choice::Rescue => {
                if let Err(error) = rescue::open_shell() {
                    log(error.chain());
                }
            }
            Choice::AskRestart => self.dialog.ask_restart(),
            Choice::AskPowerOff => self.dialog.ask_power_off(),
            Choice::Save(network, controller) => self.save(*network, controller),
            Choice::Network(network, controller) => self.set_network(*network, controller),
            Choice::InstallFromMedia => self.install("reading USB sticks and CDs".into(), || {
                let media = media::load_media()?;
                let names = media.iter().map(|medium| medium.name.clone()).collect::<Vec<_>>().join(", ");
                Ok((names, media.into_iter().flat_map(|medium| medium.files).collect()))
            }),
            Choice::InstallFromUrl(url) => {
                self.install(format!("fetching {url}"), move || download::fetch(&url).map(|file| (url, vec![file])))
            }
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Restart => end(self.status, "restarting", RebootCommand::Restart),
            Outcome::PowerOff => end(self.status, "switching off", RebootCommand::PowerOff),
            Outcome::Stay => deadline::stay(),
            Outcome::Confirmed(code) => {
                log(format!(
                    "controller: its operator sees the code {code}, as answered here; it is trusted until the restart"
                ));
                if let Err(error) = agent::Place::default().confirm(&code) {
                    log(error.chain());
                    self.dialog.take(Input::Confirmation(Some(code)));
                }
            }
            Outcome::Denied(code) => {
                let address = self.controller.leave().unwrap_or_default();
                log(format!(
                    "controller: its operator does not see the code {code}, as answered here; \
                     the connection to {address} is dropped, and it got nothing of the disks"
                ));
                self.status.update(|picture| picture.controller = format!("{address} is not the right one: left"));
            }
            Outcome::Controller(address) => {
                self.settled = true;
                self.set_controller(address, "as typed");
            }
        }
    }

    fn set_controller(&mut self, address: String, origin: &str) {
        log(format!("controller: {address}, {origin}"));
        self.status.update(|picture| picture.controller.clone_from(&address));
        // Who types an address, or saves one, compares the pairing code; a fingerprint belongs to the configured one.
        let same = self.configuration.controller.as_deref() == Some(&address);
        self.controller.set(address, self.configuration.ca_fingerprint.clone().filter(|_| same));
        self.dialog.forget_controller();
    }

    /// Uses the settings if they are others, and then looks whether the controller can be reached.
    fn set_network(&mut self, network: Network, controller: Option<String>) {
        self.settled = true;
        if self.wanted.get().1 != network {
            self.wanted.set(network);
        }
        let Some(controller) = controller else {
            let text = "not known: type in its address".to_owned();
            self.status.update(|picture| picture.reachability = Some(Reachability { reached: false, text }));
            return;
        };
        if self.status.picture().controller != controller {
            self.set_controller(controller.clone(), "as typed");
        }
        let text = format!("looking for {controller}");
        self.status.update(|picture| picture.reachability = Some(Reachability { reached: false, text }));
        let (wanted, status) = (Arc::clone(self.wanted), Arc::clone(self.status));
        let number = wanted.number();
        std::thread::spawn(move || test(&controller, number, &wanted, &status));
    }

    /// Installs what `load` gives, with where it is from; unless that is being done already.
    fn install(&self, busy: String, load: impl FnOnce() -> Result<(String, Vec<DriverFile>)> + Send + 'static) {
        if self.status.picture().installing.is_some() {
            return;
        }
        log(format!("drivers: {busy}"));
        self.status.update(|picture| picture.installing = Some(busy));
        let status = Arc::clone(self.status);
        std::thread::spawn(move || {
            let outcomes = match load() {
                Ok((from, files)) => {
                    let count = files.len();
                    status.update(|picture| picture.installing = Some(format!("installing {count} files from {from}")));
                    installation::install(files)
                }
                Err(error) => vec![Installed { name: String::new(), installed: false, text: error.chain() }],
            };
            tell_installed(&outcomes, &status);
            status.update(|picture| picture.installing = None);
        });
    }

    /// What an earlier machine's operator saved goes before what the image was built with. A stick that comes when somebody
    /// here has set something, or in the middle of the work, must not take the network away.
    fn use_saved(&mut self, saved: Saved) {
        let Saved { place, configuration } = saved;
        if self.settled {
            return log(format!("settings: {place} is not used, for this machine has its own by now"));
        }
        log(format!("settings: as saved in {place}"));
        if self.wanted.get().1 != configuration.network {
            self.wanted.set(configuration.network);
        }
        let current = self.status.picture().controller;
        if let Some(controller) = configuration.controller.filter(|controller| *controller != current) {
            self.set_controller(controller, &format!("as saved in {place}"));
        }
    }

    /// Saves what is set, for the next machine; it takes seconds.
    fn save(&mut self, network: Network, controller: Option<String>) {
        let configuration =
            Configuration { controller, network: network.for_next_machine(), ..Configuration::default() };
        let caution = configuration.network.caution_for_next_machine();
        let status = Arc::clone(self.status);
        status.update(|picture| picture.saved = Some("saving them ...".into()));
        std::thread::spawn(move || {
            let text = match stick::save(&configuration) {
                Ok(place) => {
                    let caution = caution.map(|text| format!("; {text}")).unwrap_or_default();
                    format!("saved in {place}; the next machine that starts with it uses them{caution}")
                }
                Err(error) => format!("not saved: {}", error.chain()),
            };
            log(format!("settings: {text}"));
            status.update(|picture| picture.saved = Some(text));
        });
    }

    fn question(&self) -> Option<(String, String)> {
        self.dialog.question().map(|question| (question.text, question.complaint))
    }

    fn show(&mut self, before: Option<(String, String)>) {
        let picture = self.status.picture();
        if picture.reachability.as_ref().is_some_and(|test| test.reached) {
            // What is to be done next, comparing the pairing code, stands on the status screen.
            if self.screens.is_network() {
                self.screens.close();
            }
            self.status.update(|picture| picture.reachability = None);
        }
        let shown = self.screens.draw(&picture, &recent(LOG_LINES), ROWS);
        let appears = shown.is_none() && picture.shown.is_some();
        self.status.update(|picture| picture.shown = shown);
        self.show_question(appears || before != self.question());
    }

    fn show_question(&self, is_new: bool) {
        let question = self.dialog.question();
        if let Some(question) = question.as_ref().filter(|_| is_new && self.screens.is_status()) {
            let complaint =
                if question.complaint.is_empty() { String::new() } else { format!("{}\r\n", question.complaint) };
            console::echo(&format!("\r\n{complaint}{} ", question.text));
        }
        self.status.update(|picture: &mut Picture| picture.question = question);
    }
}

/// Says what became of files of drivers, and sets read-only what came with them.
pub fn tell_installed(outcomes: &[Installed], status: &Status) {
    let line = |outcome: &Installed| {
        let word = if outcome.installed { "installed" } else { "refused" };
        if outcome.name.is_empty() {
            outcome.text.clone()
        } else {
            format!("{} {word}: {}", outcome.name, outcome.text)
        }
    };
    let lines: Vec<String> = outcomes.iter().map(line).collect();
    lines.iter().for_each(|line| log(format!("drivers: {line}")));
    boot_image::protect_disks(status);
    boot_image::show_unclaimed(status);
    status.update(|picture| picture.installed = lines);
}

/// Looks whether the controller can be reached with the settings of this number, and says so.
fn test(controller: &str, number: u64, wanted: &Wanted, status: &Status) {
    let started = Instant::now();
    let is_wanted = || wanted.number() == number && status.picture().controller == controller;
    while is_wanted() {
        if !wanted.is_in_force(number) {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let verdict = reachability::check(controller, &status.picture());
        // Something else was asked for while this was tried.
        if !is_wanted() {
            return;
        }
        let early = matches!(verdict, Verdict::NoInterface | Verdict::NoLink | Verdict::NoAddress);
        if !early || started.elapsed() > EFFECT_MAX {
            let (reached, text) = (matches!(verdict, Verdict::Reachable(_)), verdict.to_string());
            log(format!("controller: {text}"));
            return status.update(|picture| picture.reachability = Some(Reachability { reached, text }));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

pub(crate) fn end(status: &Status, what: &str, command: RebootCommand) -> ! {
    log(format!("{what}, as asked"));
    status.update(|picture| picture.agent.detail = Some(what.into()));
    console::drain(Duration::from_secs(2));
    // Of a timer that counts through the restart the machine's own system knows nothing.
    watchdog::disarm();
    loop {
        if let Err(errno) = rustix::system::reboot(command) {
            log(format!("{what}: {errno}"));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
