//! A whole first start on a Windows that is made up: order, failures, restarts and what stays, without one that runs.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::Duration;

use firstboot::adapters::{Adapter, Location};
use firstboot::command::CommandLine;
use firstboot::letters::{LetterChange, VolumeSeen};
use firstboot::network::RegistryValue;
use firstboot::run::{Ending, Places, run};
use firstboot::system::{Ended, Facts, System};
use firstboot::{Error, ErrorKind, Result};
use machine::firstboot::*;
use machine::{IpNet, MacAddress};

/// Records what it is asked, and answers as it was told to.
#[derive(Default)]
struct MadeUp {
    asked: Vec<String>,
    adapters: Vec<Adapter>,
    volumes: Vec<VolumeSeen>,
    /// Exit codes, or errors, by a part of the command line.
    answers: BTreeMap<&'static str, VecDeque<std::result::Result<u32, ErrorKind>>>,
    serial: Vec<String>,
    waited: Duration,
}

impl MadeUp {
    fn ask(&mut self, what: impl Into<String>) {
        self.asked.push(what.into());
    }
}

impl System for MadeUp {
    fn wait_for_devices(&mut self, _: Duration) -> Result<()> {
        self.ask("wait");
        Ok(())
    }
    fn run(&mut self, command: &CommandLine, _: Duration) -> Result<Ended> {
        let line = command.to_string();
        self.ask(&line);
        if let Some(old) = line.strip_prefix("netsh.exe interface set interface name=") {
            let (from, to) = old.split_once(" newname=").unwrap();
            let (from, to) = (from.trim_matches('"'), to.trim_matches('"'));
            self.adapters.iter_mut().find(|adapter| adapter.name == from).unwrap().name = to.to_owned();
        }
        let answer =
            self.answers.iter_mut().find(|(part, _)| line.contains(*part)).and_then(|(_, next)| next.pop_front());
        match answer.unwrap_or(Ok(0)) {
            Ok(code) => Ok(Ended { code, output: "said\r\n".into() }),
            Err(kind) => Err(Error::new(kind, "ended")),
        }
    }
    fn driver_command(&self, inf: &str) -> CommandLine {
        CommandLine::new("pnputil.exe", ["-i", "-a", inf])
    }
    fn script_command(&self, file: &str) -> CommandLine {
        CommandLine::new("cmd.exe", ["/c", file])
    }
    fn adapters(&mut self) -> Result<Vec<Adapter>> {
        Ok(self.adapters.clone())
    }
    fn set_value(&mut self, value: &RegistryValue) -> Result<()> {
        self.ask(format!("{} {}", value.key, value.name));
        Ok(())
    }
    fn trust_publisher(&mut self, file: &str) -> Result<StepResult> {
        self.ask(format!("trust {file}"));
        Ok(StepResult::Done)
    }
    fn bring_online(&mut self, disk: &DiskSignature) -> Result<StepResult> {
        self.ask(format!("online {disk:?}"));
        Err(Error::new(ErrorKind::Missing, "no disk has this signature"))
    }
    fn volumes(&mut self) -> Result<Vec<VolumeSeen>> {
        Ok(self.volumes.clone())
    }
    fn change_letter(&mut self, change: &LetterChange) -> Result<()> {
        self.ask(format!("{change:?}"));
        Ok(())
    }
    fn remove_ghost(&mut self, instance_id: &str) -> Result<StepResult> {
        self.ask(format!("ghost {instance_id}"));
        Ok(StepResult::Done)
    }
    fn facts(&mut self) -> Facts {
        Facts {
            hostname: "srv1".into(),
            product: "Windows Server 2012".into(),
            version: "6.2.9200".into(),
            boot_drive: "C:".into(),
        }
    }
    fn write_serial(&mut self, port: &str, line: &str) -> Result<()> {
        self.serial.push(format!("{port} {line}"));
        Ok(())
    }
    fn restart(&mut self) -> Result<()> {
        self.ask("restart");
        Ok(())
    }
    fn sleep(&mut self, time: Duration) -> Result<()> {
        self.waited += time;
        Ok(())
    }
    fn remove(&mut self, scaffolding: &Scaffolding) -> Vec<String> {
        self.ask(format!("remove {:?}", scaffolding.keys));
        vec!["removed: all".into()]
    }
}

fn net(text: &str) -> IpNet {
    let (address, length) = text.split_once('/').unwrap();
    IpNet { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
}

fn partition(number: u32) -> PartitionIdentity {
    PartitionIdentity::Mbr { signature: number, offset: machine::ByteOffset(1 << 20) }
}

fn plan() -> Plan {
    let ipv4 = IpSettings {
        addresses: vec![net("192.0.2.7/24")],
        gateways: vec![Gateway { address: [192, 0, 2, 1].into(), metric: None }],
        ..Default::default()
    };
    let lan = AdapterSettings {
        interface: "old".into(),
        name: "LAN".into(),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        ipv4,
        ipv6: IpSettings { automatic: true, ..Default::default() },
        dns_suffix: Some("corp.example".into()),
        ..Default::default()
    };
    let route = Route { destination: net("10.0.0.0/8"), next_hop: [192, 0, 2, 9].into(), metric: None };
    Plan {
        version: PLAN_VERSION,
        nonce: "n-1".into(),
        publishers: vec!["a/publisher.cer".into()],
        drivers: vec![StagedDriver { inf: "a/a.inf".into() }, StagedDriver { inf: "b.inf".into() }],
        disks: vec![DiskSignature::Mbr { signature: 7 }],
        mounts: vec![MountRestore { partition: partition(7), letter: 'E' }],
        ghosts: vec![r"PCI\VEN_14E4".into()],
        network: NetworkSettings { adapters: vec![lan], routes: vec![route] },
        scripts: ["10-a.cmd", "20-b.cmd"].map(|file| Script { file: file.into(), timeout_s: 60 }).into(),
        serial_port: Some("COM1".into()),
        reboots_max: 2,
        scaffolding: Scaffolding { keys: vec![r"SOFTWARE\vconverter".into()], device_paths: vec![] },
    }
}

fn system() -> MadeUp {
    let adapter = Adapter {
        name: "Ethernet".into(),
        interface: "new".into(),
        instance_id: Some(r"PCI\VEN_1AF4".into()),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        location: Some(Location { bus: 0, address: 3 << 16 }),
        dhcp: true,
        ..Default::default()
    };
    let volume = VolumeSeen { path: "v7".into(), partition: Some(partition(7)), letter: None, is_boot: false };
    MadeUp { adapters: vec![adapter], volumes: vec![volume], ..Default::default() }
}

struct Machine {
    _folder: tempfile::TempDir,
    places: Places,
}

impl Machine {
    fn new(plan: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { folder: folder.path().join("firstboot"), system_root: folder.path().join("Windows") };
        fs::create_dir_all(&places.folder).unwrap();
        fs::create_dir_all(places.system_root.join("Temp")).unwrap();
        fs::write(places.folder.join(PLAN_FILE), plan).unwrap();
        Self { _folder: folder, places }
    }

    fn of(plan: &Plan) -> Self {
        Self::new(&serde_json::to_vec(plan).unwrap())
    }

    fn result(&self) -> ReportLine {
        serde_json::from_slice(&fs::read(self.places.system_root.join(RESULT_FILE)).unwrap()).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.places.system_root.join(LOG_FILE)).unwrap()
    }
}

#[test]
fn everything_is_done_in_order_and_over_restarts() {
    let (machine, mut system) = (Machine::of(&plan()), system());
    system.answers.insert("a.inf", VecDeque::from([Ok(3010)]));
    system.answers.insert("b.inf", VecDeque::from([Ok(259)]));
    system.answers.insert("10-a.cmd", VecDeque::from([Ok(3010)]));
    system.answers.insert("20-b.cmd", VecDeque::from([Ok(5)]));
    let endings = [(); 3].map(|()| run(&mut system, &machine.places));
    println!("{}", machine.log());
    assert_eq!(endings, [Ending::Restarting, Ending::Restarting, Ending::Finished]);
    let expected = r#"
wait
trust a/publisher.cer
pnputil.exe -i -a a/a.inf
pnputil.exe -i -a b.inf
restart
wait
online Mbr { signature: 7 }
Give { volume: "v7", letter: 'E' }
ghost PCI\VEN_14E4
wait
netsh.exe interface set interface name=Ethernet newname=LAN
netsh.exe interface ipv4 set address name=LAN source=static address=192.0.2.7 mask=255.255.255.0 gateway=192.0.2.1
SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\{new} Domain
netsh.exe interface ipv4 delete route prefix=10.0.0.0/8 interface=LAN nexthop=192.0.2.9
netsh.exe interface ipv4 add route prefix=10.0.0.0/8 interface=LAN nexthop=192.0.2.9 store=persistent
cmd.exe /c 10-a.cmd
restart
wait
cmd.exe /c 20-b.cmd
remove ["SOFTWARE\\vconverter"]"#;
    assert_eq!(system.asked.join("\n"), expected.trim_start());

    let report = machine.result();
    assert_eq!((report.nonce.as_str(), report.hostname.as_str(), report.reboots), ("n-1", "srv1", 2));
    let failed: Vec<&str> =
        report.steps.iter().filter(|step| step.result == StepResult::Failed).map(|step| step.step.as_str()).collect();
    assert_eq!((failed, report.success), (vec!["disk 00000007", "script 20-b.cmd"], false));
    assert_eq!(report.adapters[0].name, "LAN");
    let line = system.serial[0].strip_prefix("COM1 ").unwrap();
    assert_eq!((serde_json::from_str::<ReportLine>(line).unwrap(), system.serial.len()), (report, 1));
    assert!(!line.contains('\n'));
    assert!(machine.log().contains("said"), "{}", machine.log());
}

#[test]
fn a_stop_leaves_the_rest_for_the_next_start() {
    let (machine, mut system) = (Machine::of(&plan()), system());
    system.answers.insert("b.inf", VecDeque::from([Err(ErrorKind::Stopping)]));
    system.answers.insert("10-a.cmd", VecDeque::from([Err(ErrorKind::Stopping)]));
    let endings = [(); 3].map(|()| run(&mut system, &machine.places));
    assert_eq!(endings, [Ending::Stopped, Ending::Stopped, Ending::Finished]);
    let times = |part: &str| system.asked.iter().filter(|line| line.contains(part)).count();
    assert_eq!([times("a.inf"), times("b.inf"), times("10-a.cmd"), times("20-b.cmd"), times("Give")], [1, 2, 1, 1, 1]);
    let step = machine.result().steps.into_iter().find(|step| step.step == "script 10-a.cmd").unwrap();
    assert_eq!(step.result, StepResult::Failed);
    assert!(step.detail.starts_with("the machine or the program stopped while it ran"), "{}", step.detail);
}

#[test]
fn what_fails_is_told_and_the_rest_is_done() {
    let (machine, mut system) = (Machine::of(&plan()), system());
    system.adapters.clear();
    system.volumes.clear();
    system.answers.insert("a.inf", VecDeque::from([Err(ErrorKind::TimedOut)]));
    system.answers.insert("b.inf", VecDeque::from([Ok(0xe000_0247)]));
    assert_eq!(run(&mut system, &machine.places), Ending::Finished);
    let steps: Vec<String> = machine
        .result()
        .steps
        .iter()
        .map(|step| format!("{}: {:?}: {}", step.step, step.result, step.detail))
        .collect();
    let expected = r"
trust publisher a/publisher.cer: Done: 
driver a/a.inf: Failed: ended
driver b.inf: Failed: exit code 0xe0000247
disk 00000007: Failed: no disk has this signature
drive letters: Failed: E: its partition is not there
remove adapter PCI\VEN_14E4: Done: 
connection names: AlreadySo: 
network LAN: Failed: no adapter for its settings
routes: Failed: no adapter has 192.0.2.9 in its network
script 10-a.cmd: Done: exit code 0
script 20-b.cmd: Done: exit code 0";
    assert_eq!(steps.join("\n"), expected.trim_start());
    assert!(system.waited == Duration::from_secs(60), "adapters and volumes are waited for: {:?}", system.waited);
}

#[test]
fn a_damaged_plan_or_state_is_told_and_taken_away_with_nothing_done() {
    let whole = serde_json::to_vec(&plan()).unwrap();
    let unreadable_plan = Machine::new(&whole[..whole.len() / 2]);
    let unreadable_state = Machine::of(&plan());
    fs::write(unreadable_state.places.folder.join("state.json"), b"{\"ended\":3}").unwrap();
    for (machine, nonce, what) in [(&unreadable_plan, "", "plan: "), (&unreadable_state, "n-1", "state: ")] {
        let mut system = system();
        assert_eq!(run(&mut system, &machine.places), Ending::Finished);
        assert_eq!(system.asked, ["remove []"]);
        let report = machine.result();
        assert_eq!((report.nonce.as_str(), report.success), (nonce, false));
        assert!(report.steps[0].detail.starts_with(what), "{:?}", report.steps);
    }
}

#[test]
fn without_a_place_for_the_state_no_script_is_run_and_the_machine_never_restarted() {
    let (machine, mut system) = (Machine::of(&plan()), system());
    system.answers.insert("a.inf", VecDeque::from([Ok(3010)]));
    // A folder stands where the state's new file is to be written.
    fs::create_dir(machine.places.folder.join("state.new")).unwrap();
    assert_eq!(run(&mut system, &machine.places), Ending::Finished);
    assert!(!system.asked.iter().any(|line| line == "restart"), "{:?}", system.asked);
    assert!(system.asked.iter().any(|line| line.contains("ipv4 set address")), "the rest is done");
    assert!(!system.asked.iter().any(|line| line.contains(".cmd")), "scripts might run twice: {:?}", system.asked);
    assert!(machine.log().contains("not restarted"), "{}", machine.log());
}
