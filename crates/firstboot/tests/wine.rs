//! The program for Windows under Wine: the service's life, scripts and their log, the report, what it takes away, and the
//! network plan of recorded adapters. What Wine has not (drivers, disks, adapters, restarts) is tested in `first_start.rs`
//! without Windows, and not on a real one: `docs/WINDOWS-CHECKLIST.md`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use machine::firstboot::*;

/// A Windows of Wine's, with the program where the converter puts it. Its processes end with it.
///
/// It is one of 64 bits; with `VCONVERTER_WINE=32` one of 32 bits, for which Wine's own 32-bit part is needed (Debian's `wine32`, of
/// another architecture than the machine's: by hand, `docs/VALIDATION.md`).
struct Wine {
    folder: tempfile::TempDir,
    build: support::Build,
    /// Keeps Wine from shutting down while no program of the test runs.
    shell: Option<Child>,
}

impl Wine {
    fn new(plan: &Plan, scripts: &[(&str, &str)]) -> Self {
        let is_32_bit = std::env::var("VCONVERTER_WINE").is_ok_and(|bits| bits == "32");
        let build = if is_32_bit { support::X86 } else { support::AMD64 };
        let program = build.program();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let wine = Self { folder, build, shell: None };
        let said = wine.command("wineboot", &["-i"]).output().expect("wine is installed (tools/setup test)");
        assert!(said.status.success(), "{said:?}");
        wine.wait();
        fs::create_dir_all(wine.firstboot().join(SCRIPTS_FOLDER)).unwrap();
        fs::copy(program, wine.firstboot().join(PROGRAM)).unwrap();
        fs::write(wine.firstboot().join(PLAN_FILE), serde_json::to_vec(plan).unwrap()).unwrap();
        for (name, text) in scripts {
            fs::write(wine.firstboot().join(SCRIPTS_FOLDER).join(name), text.replace('\n', "\r\n")).unwrap();
        }
        wine
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let prefix = self.folder.path().join("prefix");
        command.args(arguments).env("WINEPREFIX", prefix).env("HOME", self.folder.path()).env("WINEDEBUG", "-all");
        let bits = if self.build.machine == support::X86.machine { "win32" } else { "win64" };
        command
            .env("WINEARCH", bits)
            .env("WINEDLLOVERRIDES", "mscoree=;mshtml=")
            .env_remove("DISPLAY")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("wine", arguments).output().unwrap()
    }

    /// Until the last program has ended: then the registry is on the disk.
    fn wait(&self) {
        assert!(self.command("wineserver", &["-w"]).status().unwrap().success());
    }

    fn drive(&self) -> PathBuf {
        self.folder.path().join("prefix/drive_c")
    }

    /// A path below the system root, with the cases that Wine has it in.
    fn windows(&self, path: &str) -> PathBuf {
        self.drive().join("windows").join(path.replacen("Temp", "temp", 1))
    }

    fn firstboot(&self) -> PathBuf {
        self.drive().join(FOLDER.trim_start_matches('/'))
    }

    /// Writes the registry as the converter does, while nothing runs, with `more` keys.
    fn install_service(&self, more: &str) {
        let wide: Vec<String> = SERVICE_IMAGE_PATH
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .map(|b| format!("{b:02x}"))
            .collect();
        let service = format!(
            "\"DisplayName\"=\"{SERVICE_DISPLAY_NAME}\"\n\"ErrorControl\"=dword:{SERVICE_ERROR_CONTROL:08x}\n\"ImagePath\"=hex(2):{}\n\"ObjectName\"=\"{SERVICE_ACCOUNT}\"\n\"Start\"=dword:{SERVICE_START:08x}\n\"Type\"=dword:{SERVICE_TYPE:08x}\n",
            wide.join(",")
        );
        let key = |set: &str| format!("[HKEY_LOCAL_MACHINE\\SYSTEM\\{set}\\Services\\{SERVICE}]\n{service}\n");
        let (current, other) = (key("CurrentControlSet"), key("ControlSet002"));
        let serial = self.serial().display().to_string();
        let text = format!(
            "Windows Registry Editor Version 5.00\n\n{current}{other}[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n\"Current\"=dword:00000001\n\n[HKEY_LOCAL_MACHINE\\Software\\Wine\\Ports]\n\"COM1\"=\"{serial}\"\n\n{more}"
        );
        let file = self.folder.path().join("service.reg");
        // As regedit writes it: only then are values of other types UTF-16 for Wine.
        let units = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        fs::write(&file, units.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        fs::write(self.serial(), "").unwrap();
        let said = self.run(&["regedit", "/S", &format!("Z:{}", file.display())]);
        assert!(said.status.success(), "{said:?}");
        self.wait();
    }

    fn serial(&self) -> PathBuf {
        self.folder.path().join("serial")
    }

    /// Starts Windows: the service manager starts what is to start by itself.
    fn start(&mut self) {
        let shell =
            self.command("wine", &["cmd"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.shell = Some(shell.unwrap());
    }

    fn has_key(&self, key: &str) -> bool {
        self.run(&["reg", "query", key]).status.success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.windows(LOG_FILE)).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(90), "not seen in 90 s: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{what}: {:.1} s", begun.elapsed().as_secs_f32());
    }

    fn result(&self) -> ReportLine {
        serde_json::from_slice(&fs::read(self.windows(RESULT_FILE)).unwrap()).unwrap()
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        let _ = self.command("wineserver", &["-k"]).status();
        let _ = self.command("wineserver", &["-w"]).status();
        if let Some(mut shell) = self.shell.take() {
            let _ = shell.kill();
            let _ = shell.wait();
        }
    }
}

fn plan(scripts: &[(&str, u32)]) -> Plan {
    Plan {
        version: PLAN_VERSION,
        nonce: "proof-7".into(),
        scripts: scripts
            .iter()
            .map(|(file, timeout_s)| Script { file: (*file).into(), timeout_s: *timeout_s })
            .collect(),
        serial_port: Some("COM1".into()),
        ..Plan::default()
    }
}

fn results(report: &ReportLine) -> Vec<String> {
    report.steps.iter().map(|step| format!("{}: {:?}: {}", step.step, step.result, step.detail)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A certificate of nobody's, by OpenSSL, and the key under which Windows keeps it.
fn make_certificate(file: &Path) -> String {
    let openssl = |arguments: &[&str]| {
        let said = Command::new("openssl").args(arguments).output().expect("openssl is installed (tools/setup test)");
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let path = file.to_str().unwrap();
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=A publisher", "-keyout", "/dev/null"];
    openssl(&[&request[..], &["-outform", "DER", "-out", path]].concat());
    let digest = openssl(&["x509", "-inform", "DER", "-in", path, "-noout", "-fingerprint", "-sha1"]);
    let digest = digest.trim().rsplit('=').next().unwrap().replace(':', "");
    format!(r"HKLM\SOFTWARE\Microsoft\SystemCertificates\TrustedPublisher\Certificates\{digest}")
}

#[test]
fn the_service_runs_scripts_reports_and_takes_itself_away() {
    let mut plan = plan(&[("10-first.cmd", 30), ("20-fails.bat", 30), ("30-hangs.cmd", 2), ("40-last.cmd", 30)]);
    plan.publishers = vec!["publisher.cer".into(), "none.cer".into()];
    plan.ghosts = vec![r"PCI\VEN_14E4&DEV_1639\0".into()];
    plan.scaffolding.keys = vec![r"SOFTWARE\vconverter".into(), r"SOFTWARE\vconverter-absent".into()];
    plan.scaffolding.device_paths = vec![r"%ProgramFiles%\vconverter\firstboot\drivers".into()];
    let order = |name: &str| format!("@echo off\necho {name} >> %SystemDrive%\\order.txt\necho said by {name}\n");
    let scripts = [
        ("10-first.cmd", order("first")),
        ("20-fails.bat", order("second") + "exit 7\n"),
        // What it starts is ended with it.
        ("30-hangs.cmd", order("third") + "\"%ComSpec%\" /d /c child.cmd\n"),
        ("child.cmd", "@echo off\n:again\necho x >> %SystemDrive%\\ticks.txt\ngoto again\n".into()),
        ("40-last.cmd", order("fourth")),
    ];
    let mut wine = Wine::new(&plan, &scripts.each_ref().map(|(name, text)| (*name, text.as_str())));
    let certificate = wine.firstboot().join(DRIVERS_FOLDER).join("publisher.cer");
    fs::create_dir(certificate.parent().unwrap()).unwrap();
    let trusted = make_certificate(&certificate);
    wine.install_service(
        "[HKEY_LOCAL_MACHINE\\SOFTWARE\\vconverter\\below]\n\"a\"=\"b\"\n\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion]\n\"DevicePath\"=\"%SystemRoot%\\\\inf;%ProgramFiles%\\\\vconverter\\\\firstboot\\\\drivers\"\n",
    );
    wine.start();
    wine.wait_until("the result", || wine.windows(RESULT_FILE).exists());
    wine.wait_until("the end", || wine.log().ends_with("done\r\n"));
    let (log, report) = (wine.log(), wine.result());
    println!("{log}");

    let expected = [
        "trust publisher publisher.cer: Done: ",
        r"trust publisher none.cer: Failed: C:\Program Files\vconverter\firstboot\drivers\none.cer: File not found. (os error 2)",
        r"remove adapter PCI\VEN_14E4&DEV_1639\0: AlreadySo: ",
        "script 10-first.cmd: Done: exit code 0",
        "script 20-fails.bat: Failed: exit code 7",
        r"script 30-hangs.cmd: Failed: C:\windows\System32\cmd.exe was ended after 2 s; it wrote: said by third",
        "script 40-last.cmd: Done: exit code 0",
    ];
    assert_eq!(results(&report), expected);
    assert_eq!((report.nonce.as_str(), report.boot_drive.as_str(), report.success), ("proof-7", "C:", false));
    assert!(report.product.contains("Windows") && report.version.starts_with("6.1."), "{report:?}");
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(report.hostname.to_lowercase(), hostname.trim().split('.').next().unwrap().to_lowercase());
    let order = fs::read_to_string(wine.drive().join("order.txt")).unwrap();
    assert_eq!(order.split_whitespace().collect::<Vec<_>>(), ["first", "second", "third", "fourth"]);
    assert!(["first", "second", "fourth"].iter().all(|name| log.contains(&format!("said by {name}"))), "{log}");

    let ticks = || fs::metadata(wine.drive().join("ticks.txt")).unwrap().len();
    let counted = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(counted > 0 && ticks() == counted, "the child ran, and runs no more");
    assert!(wine.has_key(&trusted), "the publisher is trusted");

    let serial = fs::read_to_string(wine.serial()).unwrap();
    let lines: Vec<&str> = serial.split("\r\n").collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "", ""), "{serial:?}");
    assert_eq!(serde_json::from_str::<ReportLine>(lines[1]).unwrap(), report);

    let services = r"HKLM\SYSTEM\CurrentControlSet\Services";
    wine.wait_until("the service is gone", || !wine.has_key(&format!(r"{services}\{SERVICE}")));
    assert!(wine.has_key(services), "the query itself works");
    assert!(!wine.has_key(&format!(r"HKLM\SYSTEM\ControlSet002\Services\{SERVICE}")));
    assert!(!wine.has_key(r"HKLM\SOFTWARE\vconverter"));
    let device_path =
        wine.run(&["reg", "query", r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion", "/v", "DevicePath"]);
    let device_path = String::from_utf8_lossy(&device_path.stdout).into_owned();
    assert!(device_path.trim_end().ends_with(r"%SystemRoot%\inf"), "{device_path}");
    assert!(!wine.firstboot().exists() && !wine.firstboot().parent().unwrap().exists());
    let temp = wine.windows("Temp");
    let programs = || names(&temp).into_iter().filter(|name| name.starts_with(SERVICE)).collect::<Vec<_>>();
    wine.wait_until("the program is gone", || !programs().iter().any(|name| name.ends_with(".exe")));
    assert_eq!(programs(), ["vconverter-firstboot-result.json", "vconverter-firstboot.log"]);
}

#[test]
fn a_service_that_is_stopped_goes_on_at_its_next_start_and_runs_no_script_twice() {
    let count = "@echo off\necho x >> %SystemDrive%\\%~n0.txt\n";
    let hangs = format!("{count}:again\ngoto again\n");
    let scripts = [("10-first.cmd", count), ("20-hangs.cmd", hangs.as_str()), ("30-last.cmd", count)];
    let mut wine = Wine::new(&plan(&[("10-first.cmd", 30), ("20-hangs.cmd", 3600), ("30-last.cmd", 30)]), &scripts);
    wine.install_service("");
    wine.start();
    wine.wait_until("the script that hangs", || wine.drive().join("20-hangs.txt").exists());
    let stopped = wine.run(&["sc", "stop", SERVICE]);
    assert!(stopped.status.success(), "{stopped:?}");
    wine.wait_until("the stop", || wine.log().contains("stopped; goes on at the next start"));
    assert!(wine.firstboot().join(PROGRAM).exists() && !wine.windows(RESULT_FILE).exists());
    assert!(wine.has_key(&format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{SERVICE}")));

    // The next start of Windows.
    drop(wine.shell.take().unwrap().stdin.take());
    wine.wait();
    wine.start();
    wine.wait_until("the end", || wine.log().ends_with("done\r\n"));
    println!("{}", wine.log());
    let expected = [
        "script 10-first.cmd: Done: exit code 0",
        "script 20-hangs.cmd: Failed: the machine or the program stopped while it ran, 1 times",
        "script 30-last.cmd: Done: exit code 0",
    ];
    assert_eq!(results(&wine.result()), expected);
    for script in ["10-first", "20-hangs", "30-last"] {
        let text = fs::read_to_string(wine.drive().join(format!("{script}.txt"))).unwrap();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["x"], "{script}");
    }
}

#[test]
fn the_network_plan_of_recorded_adapters_is_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let plan: Plan = serde_json::from_slice(&fs::read(folder.join("plan.json")).unwrap()).unwrap();
    let wine = Wine::new(&plan, &[]);
    fs::copy(folder.join("adapters.json"), wine.drive().join("adapters.json")).unwrap();
    let program = format!(r"C:{}\{PROGRAM}", FOLDER.replace('/', r"\"));
    let said = wine.run(&[&program, "--dry-run", "--adapters", r"C:\adapters.json"]);
    assert!(said.status.success(), "{said:?}");
    let printed = String::from_utf8(said.stdout).unwrap();
    println!("{printed}");
    assert_eq!(printed, fs::read_to_string(folder.join("commands.txt")).unwrap());
    assert!(wine.firstboot().join(PROGRAM).exists() && !wine.windows(LOG_FILE).exists(), "nothing is done");

    let listed = wine.run(&[&program, "--list-adapters"]);
    let adapters = firstboot::adapters::parse_adapters(&listed.stdout).unwrap();
    let loopback = |net: &machine::IpNet| net.address == std::net::Ipv4Addr::LOCALHOST;
    let found = adapters.iter().find(|adapter| adapter.addresses.iter().any(loopback)).expect("the loopback is there");
    assert_eq!((found.mac, found.is_hardware()), (None, false), "{found:?}");
    assert_eq!(wine.run(&[&program, "--dry-run", "--adapters", r"C:\absent.json"]).status.code(), Some(1));
    assert_eq!(wine.run(&[&program]).status.code(), Some(2));
}
