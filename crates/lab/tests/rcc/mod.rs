//! A live machine with an installed agent, and what an administrator would look at before and after it was restarted into the boot
//! image: everything that it is started by.

use std::time::{Duration, Instant};

use lab::{Boot, Cable, Kind, Session, Site, SourceMachine};
use qemu::{Hardware, NicBackend, SerialReader, Vm};
use serde_json::Value;

/// Under translation on a loaded machine a boot to the login took 15 minutes.
pub(crate) const BOOT: Duration = Duration::from_secs(1800);
pub(crate) const COMMAND: Duration = Duration::from_secs(300);

/// Boot files, boot variables and what the agent keeps; lines that are the same mean a boot path that is the same.
const BOOT_PATH: &str = "cd / && find boot -type f -exec sha256sum {} + | sort -k2; find boot | sort; \
    for v in /sys/firmware/efi/efivars/{Boot[0-9O]*,BootNext-*,LoaderEntry*}; do [ -e $v ] && sha256sum $v; done; \
    ls /var/lib/vconverter-agent | grep -v '^certificate-' | sort; ls -d /run/vconverter* 2>/dev/null | grep -v '^/run/vconverter-agent$'; true";

/// A machine that runs its own system, on the LAN of a site.
pub(crate) struct LiveMachine {
    // In the order in which they end.
    vm: Option<Vm>,
    pub(crate) cable: Cable,
    pub(crate) site: Site,
    pub(crate) machine: SourceMachine,
    pub(crate) hardware: Hardware,
    /// Its id at the controller.
    pub(crate) id: String,
    /// Its boot path before anything was done.
    pub(crate) before: String,
    begun: Instant,
    _folder: tempfile::TempDir,
}

impl LiveMachine {
    /// Boots a machine, after `change`, prepares its own system by a command, and installs the agent with a one-time token.
    pub(crate) fn start(kind: Kind, change: impl FnOnce(&SourceMachine, &mut Hardware), prepare: &str) -> Self {
        Self::start_on(kind, |_| {}, change, prepare)
    }

    /// The same on a LAN that is changed first.
    pub(crate) fn start_on(
        kind: Kind,
        change_site: impl FnOnce(&mut Site),
        change: impl FnOnce(&SourceMachine, &mut Hardware),
        prepare: &str,
    ) -> Self {
        let begun = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let machine = SourceMachine::make(kind, folder.path()).unwrap();
        let mut site = Site::new(folder.path()).unwrap();
        change_site(&mut site);
        machine.put_program(&site.programs().join("vconverter-agent"), "/root/vconverter-agent").unwrap();
        let mut hardware = machine.hardware(Boot::Disk, NicBackend::Unplugged);
        change(&machine, &mut hardware);
        let cable = site.lan().plug(&mut hardware, 0).unwrap();
        let vm = hardware.start().unwrap();
        let mut live = Self {
            vm: Some(vm),
            cable,
            site,
            machine,
            hardware,
            id: String::new(),
            before: String::new(),
            begun,
            _folder: folder,
        };
        let token = live.site.json(&["agents", "token", "create", "--label", "lab"]).unwrap();
        let token = token["token"].as_str().unwrap().to_owned();
        let address = live.site.controller_address();
        live.say(&format!("{} is switched on", live.machine.hostname));
        {
            let mut session = live.login(live.vm().serial(0).reader());
            live.say("it runs its own system");
            if !prepare.is_empty() {
                println!("{}", session.output(prepare, COMMAND).unwrap());
            }
            let install = format!("echo {token} | /root/vconverter-agent install --controller {address} --enrol -");
            println!("{}", session.output(&install, COMMAND).unwrap());
            session.output("rm /root/vconverter-agent; sync", COMMAND).unwrap();
        }
        live.log_out();
        live.id = live.site.ready_machine(COMMAND).unwrap();
        live.say(&format!("its agent is installed and approved: machine {}", live.id));
        live.before = live.boot_path(&mut live.log_in_again());
        live.log_out();
        live
    }

    pub(crate) fn vm(&self) -> &Vm {
        self.vm.as_ref().unwrap()
    }

    /// Cuts its power, and gives it back.
    pub(crate) fn cut_power(&mut self) -> SerialReader {
        self.vm = None;
        self.say("power cut");
        self.vm = Some(self.hardware.start().unwrap());
        self.vm().serial(0).reader()
    }

    pub(crate) fn say(&self, text: &str) {
        println!("[{:>4} s] {text}", self.begun.elapsed().as_secs());
    }

    /// Logs in where nobody is logged in.
    pub(crate) fn log_in_again(&self) -> Session<'_> {
        let reader = self.vm().serial(0).reader_from_now();
        // Asks for the prompt once more.
        self.vm().serial(0).write("\n").unwrap();
        self.login(reader)
    }

    /// Ends the shell of a login: the prompt comes again.
    pub(crate) fn log_out(&self) {
        let mut reader = self.vm().serial(0).reader_from_now();
        self.vm().serial(0).write("exit\n").unwrap();
        self.sees(&mut reader, " login: ");
    }

    /// Waits for its own login prompt.
    pub(crate) fn is_in_own_system(&self, reader: SerialReader) {
        drop(self.login(reader));
        self.log_out();
    }

    fn is_same(&self, after: &str) {
        let only = |one: &str, other: &str| {
            let other: Vec<&str> = other.lines().collect();
            one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect::<Vec<_>>()
        };
        let (gone, new) = (only(&self.before, after), only(after, &self.before));
        assert!(gone.is_empty() && new.is_empty(), "the boot path: gone {gone:?}, new {new:?}");
    }

    /// Its boot path is as it was, and nobody restarted it.
    pub(crate) fn is_unchanged(&self) {
        let after = self.boot_path(&mut self.log_in_again());
        self.log_out();
        self.is_same(&after);
    }

    /// Logs in at the first prompt behind what `reader` has read.
    fn login(&self, reader: SerialReader) -> Session<'_> {
        let machine = &self.machine;
        let session =
            Session::login_after(self.vm().serial(0), reader, &machine.hostname, &machine.root_password, BOOT);
        session.unwrap_or_else(|error| panic!("{error}\n{}", tail(&self.vm().serial(0).text(), 60)))
    }

    /// What the machine is started by, as its own system sees it.
    fn boot_path(&self, session: &mut Session<'_>) -> String {
        session.output(&format!("bash -c '{}'", BOOT_PATH.replace('\'', "'\\''")), COMMAND).unwrap()
    }

    /// Waits for its own login prompt behind what `reader` has read, and for the agent to have told its boot path; compares.
    pub(crate) fn is_back(&self, reader: SerialReader, task: &str) {
        let mut session = self.login(reader);
        self.say("its own login prompt");
        let begun = Instant::now();
        while self.task(task)["course"]["boot_path"].is_null() {
            assert!(begun.elapsed() < COMMAND, "its agent does not tell its boot path:\n{}", self.log(task));
            std::thread::sleep(Duration::from_secs(1));
        }
        // The record goes when the controller has the report.
        std::thread::sleep(Duration::from_secs(2));
        let after = self.boot_path(&mut session);
        drop(session);
        self.log_out();
        self.is_same(&after);
        self.say(&format!("its boot path is as before: {} lines", after.lines().count()));
    }

    /// Asks for a conversion.
    pub(crate) fn convert(&self, options: &[&str]) -> String {
        let output = self.site.output().display().to_string();
        let name = self.machine.hostname.clone();
        let arguments =
            ["convert", &self.id, "--name", &name, "--output", &output, "--rcc", "--detach", "--no-link-test"];
        let task = self.site.json(&[&arguments[..], options].concat()).unwrap();
        let task = task["id"].as_str().unwrap().to_owned();
        self.say(&format!("task {task}: {}", options.join(" ")));
        task
    }

    pub(crate) fn task(&self, task: &str) -> Value {
        self.site.json(&["tasks", "show", task]).unwrap()
    }

    pub(crate) fn log(&self, task: &str) -> String {
        self.site.vconverter(&["tasks", "log", task]).unwrap().1
    }

    /// Waits for something on the serial console.
    pub(crate) fn sees(&self, reader: &mut SerialReader, text: &str) {
        if let Err(error) = reader.wait_for(text, BOOT) {
            panic!("{error}\n{}", tail(&self.vm().serial(0).text(), 60));
        }
        self.say(&format!("on its screen: {text}"));
    }
}

/// A time so many seconds from now, as `--at` takes it.
pub(crate) fn in_seconds(seconds: u32) -> String {
    let date = std::process::Command::new("date");
    let mut date = date;
    let output = date.args(["-u", "-d", &format!("+{seconds} sec"), "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The lab needs root.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: it needs root");
    }
    is_root
}
