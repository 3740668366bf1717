//! The agent gets onto machines over SSH, and goes again: real sshd, sudo and doas in Debian trees, a real controller, no VM.
//! After each misuse the machine is what it was before. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::{SSH_PASSWORD, Site, SshServer};
use serde_json::Value;

const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const BASTION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
/// Time for what was cut off to undo itself.
const PATIENCE: Duration = Duration::from_secs(45);
/// A port of the controller's host where nobody listens.
const NOWHERE: &str = "10.77.0.2:9";

struct Place {
    site: Site,
    web: SshServer,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        for name in ["key", "other"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path.join(name)).status();
            assert!(made.unwrap().success());
        }
        for (name, secret) in [("password", SSH_PASSWORD), ("wrong", "not it")] {
            fs::write(path.join(name), format!("{secret}\n")).unwrap();
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut site = Site::new(&path).unwrap();
        let web = SshServer::start(site.lan(), (WEB, 22), &path.join("key.pub"), "").unwrap();
        fs::write(path.join("known"), web.known_host().unwrap()).unwrap();
        // Nothing of whoever runs this test is used.
        let known = path.join("known");
        let config =
            format!("UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nIdentityAgent none\n", known.display());
        fs::write(path.join("config"), config).unwrap();
        Self { site, web, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `vconverter agent …`, where `:name` is a file of the test's folder.
    fn command(&self, line: &str) -> Command {
        let mut command = self.site.program("vconverter");
        command.arg("agent");
        for word in line.split(' ') {
            match word.strip_prefix(':') {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(word),
            };
        }
        command.arg("--ssh-config").arg(self.path("config"));
        command
    }

    fn run(&self, line: &str) -> (Option<i32>, String) {
        let start = Instant::now();
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        println!("--- {line}: {status}, {:.1} s\n{said}", start.elapsed().as_secs_f64());
        (status.code(), said)
    }

    fn succeeds(&self, line: &str) -> String {
        let (code, said) = self.run(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    fn status(&self, line: &str) -> Value {
        let Output { stdout, .. } = self.command(&format!("status {line} --json")).output().unwrap();
        serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{line}: {e}: {}", String::from_utf8_lossy(&stdout)))
    }

    /// One sentence with `text` and exit code `code`, and nothing is left of it.
    fn fails(&self, line: &str, code: i32, text: &str) {
        let before = self.web.content().unwrap();
        let (ended, said) = self.run(line);
        let last = said.lines().last().unwrap_or_default();
        assert!(
            ended == Some(code) && last.starts_with("vconverter: ") && last.contains(text),
            "{line}: {ended:?} {last}"
        );
        self.is_as_before(&before, line);
    }

    /// Soon everything is as it was, and nothing of ours runs there; nor is anything of ours left here.
    fn is_as_before(&self, before: &str, what: &str) {
        let start = Instant::now();
        loop {
            let processes = self.web.processes().unwrap();
            let ours: Vec<&String> = processes.iter().filter(|line| line.contains("vconverter")).collect();
            let now = self.web.content().unwrap();
            if ours.is_empty() && now == before {
                break;
            }
            if start.elapsed() > PATIENCE {
                let new: Vec<&str> = now.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
                let gone: Vec<&str> = before.lines().filter(|line| !now.lines().any(|new| new == *line)).collect();
                panic!("{what}: left {new:#?}, gone {gone:#?}, running {ours:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ids of tokens that are good and were not used.
    fn good_tokens(&self) -> Vec<Value> {
        let tokens = self.site.json(&["agents", "token", "list"]).unwrap();
        let good = |token: &&Value| token["used_at"].is_null() && token["revoked_at"].is_null();
        tokens.as_array().unwrap().iter().filter(good).cloned().collect()
    }
}

fn done(said: &str) -> Value {
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|step| step["step"] == "done")
        .unwrap()
}

#[test]
fn the_agent_is_installed_updated_told_and_removed() {
    let place = Place::new();
    let web = &place.web;
    let before = web.content().unwrap();
    let login = "ssh://ada@10.77.0.11 --password-file :password";
    let said = place.succeeds(&format!("install {login} --dry-run"));
    assert!(
        said.contains("would     write /usr/local/sbin/vconverter-agent") && said.contains("update-rc.d"),
        "{said}"
    );
    place.is_as_before(&before, "a dry run");

    let installed = done(&place.succeeds(&format!("install {login} --json")));
    let machine = installed["machine"].as_str().unwrap();
    assert_eq!(place.site.ready_machine(Duration::from_secs(30)).unwrap(), machine);
    let status = place.status(login);
    assert_eq!(
        (&status["installed"], &status["running"], &status["init"]),
        (&true.into(), &true.into(), &"sysv".into()),
        "{status}"
    );
    assert_eq!((&status["key"], &status["last"]["status"]), (&installed["key"], &"ready".into()), "{status}");
    assert!(web.run("ls /etc/rc2.d /etc/rc6.d").unwrap().contains("vconverter-agent"));
    let modes = web
        .run("stat -c %a /var/lib/vconverter-agent /var/lib/vconverter-agent/agent.pem; ls /var/lib/vconverter-agent")
        .unwrap();
    assert!(modes.starts_with("700\n600\n") && !modes.contains("token"), "{modes}");
    assert!(!web.processes().unwrap().iter().any(|line| line.contains("vce_")));

    // Again is an update: it is the same machine with the same key.
    let updated = done(&place.succeeds(&format!("install {login} --json")));
    assert_eq!(
        (&updated["outcome"], &updated["key"], &updated["machine"]),
        (&"updated".into(), &installed["key"], &installed["machine"])
    );
    // One that fails leaves the old one at work.
    let (code, said) = place.run(&format!("install {login} --controller {NOWHERE} --timeout 2"));
    assert!(code == Some(1) && said.contains("everything was undone"), "{said}");
    let status = place.status(login);
    assert_eq!((&status["key"], &status["running"]), (&installed["key"], &true.into()), "{status}");
    assert_eq!(status["controller"], place.site.controller_address(), "{status}");

    let said = place.succeeds(&format!("remove {login}"));
    assert!(said.contains("remove /var/lib/vconverter-agent and what is in it"), "{said}");
    place.is_as_before(&before, "removed");
    assert!(place.succeeds(&format!("remove {login}")).contains("nothing of the agent is on"));
    place.is_as_before(&before, "removed twice");
    assert_eq!(place.good_tokens(), Vec::<Value>::new());
    let log = place.site.controller_log();
    assert!(!log.contains("vce_") && !log.contains(SSH_PASSWORD), "a secret in the log");
}

#[test]
fn every_way_in_and_every_way_to_be_root_works_and_so_does_openrc() {
    let mut place = Place::new();
    // Only the bastion reaches it.
    let key = place.path("key.pub");
    let inner = SshServer::start(place.site.lan(), (Ipv4Addr::LOCALHOST, 2200), &key, "").unwrap();
    let bastion = SshServer::start(place.site.lan(), (BASTION, 2222), &key, "").unwrap();
    let known = [&place.web, &inner, &bastion].map(|server| server.known_host().unwrap()).concat();
    fs::write(place.path("known"), known).unwrap();
    let before = place.web.content().unwrap();
    for (login, how) in [
        ("ssh://root@10.77.0.11 --identity :key", "root itself"),
        ("ssh://nopass@10.77.0.11 --identity :key", "without a password"),
        ("ssh://ada@10.77.0.11 --identity :key --sudo-password-file :password", "with a password"),
        ("ssh://dora@10.77.0.11 --password-file :password", "root by doas"),
    ] {
        let said = place.succeeds(&format!("install {login} --once"));
        assert!(said.contains(how) && !said.contains("/usr/local"), "{said}");
        let status = place.status(login);
        assert_eq!((&status["once"], &status["installed"]), (&true.into(), &false.into()), "{status}");
        // The program itself was deleted.
        let program = place.web.run("readlink /proc/$(pgrep -x vconverter-agen)/exe").unwrap();
        assert!(program.trim().ends_with("(deleted)"), "{program}");
        place.succeeds(&format!("remove {login}"));
        place.is_as_before(&before, login);
    }

    let login = "ssh://nopass@127.0.0.1:2200 --identity :key --jump ada@10.77.0.12:2222";
    let on_bastion = bastion.content().unwrap();
    let before = inner.content().unwrap();
    inner.boot_openrc().unwrap();
    let said = place.succeeds(&format!("install {login} --controller {}", place.site.controller_address()));
    assert!(said.contains("through ada@10.77.0.12") && said.contains("link /etc/runlevels/default"), "{said}");
    let status = place.status(login);
    assert_eq!((&status["init"], &status["running"]), (&"openrc".into(), &true.into()), "{status}");
    println!("{}", inner.run("rc-service vconverter-agent status; rc-update show default; ps -e -o args=").unwrap());
    place.succeeds(&format!("remove {login}"));
    inner.run("rm -rf /run/openrc /etc/runlevels").unwrap();
    let after = inner.content().unwrap();
    let left: Vec<&str> = after.lines().filter(|line| line.contains("vconverter")).collect();
    assert!(left.is_empty(), "{left:?}");
    println!("changed by OpenRC itself: {:?}", after.lines().filter(|line| !before.contains(line)).collect::<Vec<_>>());
    assert_eq!(bastion.content().unwrap(), on_bastion, "the jump host");
}

#[test]
fn misuse_is_one_sentence_and_leaves_nothing() {
    let place = Place::new();
    let web = &place.web;
    let (ada, root) = ("ssh://ada@10.77.0.11 --password-file :password", "ssh://root@10.77.0.11 --identity :key");

    // Who it is.
    let fingerprint = web.host_key().unwrap();
    let known = fs::read_to_string(place.path("known")).unwrap();
    fs::write(place.path("known"), "").unwrap();
    place.fails(&format!("install {ada}"), 4, &format!("then add --host-key {fingerprint}"));
    place.fails(&format!("install {ada} --host-key SHA256:AAAA"), 4, "not the one of --host-key");
    let said = place.succeeds(&format!("install {ada} --host-key {fingerprint} --dry-run"));
    assert!(said.contains("nothing was done"), "{said}");
    let other = fs::read_to_string(place.path("other.pub")).unwrap();
    fs::write(place.path("known"), format!("# a line\n10.77.0.11 {other}")).unwrap();
    let line = format!("{}:2 has another one; nothing was done", place.path("known").display());
    place.fails(&format!("install {ada}"), 4, &line);
    fs::write(place.path("known"), known).unwrap();

    // Who may log in.
    place.fails("install ssh://ada@10.77.0.11 --password-file :wrong", 4, "the password is wrong");
    place.fails("install ssh://ada@10.77.0.11", 4, "no key was taken (it takes publickey,password)");
    place.fails("install ssh://bob@10.77.0.11 --identity :other", 4, "no key was taken");
    place.fails(
        "install ssh://root@10.77.0.11 --password-file :password",
        4,
        "the password is wrong, or not taken for this user",
    );
    place.fails("install ssh://ada@10.77.0.11:2299", 1, "no SSH server listens there");
    place.fails("install ssh://ada@no-such-host.invalid", 3, "the name of ada@no-such-host.invalid is not found");
    place.fails("install ssh://ada@10.77.0.11 --identity :missing", 3, "no such key");
    place.fails(
        "install ssh://ada@10.0.0.1 --identity :key --jump root@10.77.0.11",
        1,
        "root@10.77.0.11 cannot reach ada@10.0.0.1",
    );
    place.fails("install ssh://ada@10.0.0.1 --jump bob@10.77.0.11", 4, "bob@10.77.0.11 lets nobody in");

    // Who may be root.
    let with = |user: &str| format!("install ssh://{user}@10.77.0.11 --password-file :password");
    place.fails(&with("bob"), 4, "bob may not use sudo for this");
    place.fails(&with("teletype"), 4, "sudo wants a terminal (requiretty)");
    place.fails(&format!("{} --sudo-password-file :wrong", with("ada")), 4, "sudo does not take the password for ada");
    place.fails("install ssh://ada@10.77.0.11 --identity :key", 4, "sudo asks ada for a password");
    web.run("mv /usr/bin/sudo /usr/bin/tmp-sudo").unwrap();
    place.fails(&with("dave"), 4, "doas asks dave for a password");
    web.run("mv /usr/bin/doas /usr/bin/tmp-doas").unwrap();
    place.fails(&with("ada"), 4, "neither sudo nor doas is there");
    web.run("mv /usr/bin/tmp-sudo /usr/bin/sudo; mv /usr/bin/tmp-doas /usr/bin/doas").unwrap();

    // Where things can be. A folder that is no good is told, and another taken.
    web.run("mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp").unwrap();
    let said = place.succeeds(&format!("install {root} --dry-run"));
    assert!(
        said.contains("/tmp: programs may not run there, it is mounted noexec") && said.contains("to /var/tmp/"),
        "{said}"
    );
    web.run("for f in /var/tmp /dev/shm; do mount -t tmpfs -o noexec,mode=1777 tmpfs $f; done; for f in /home /run; do mount --bind $f $f; mount -o remount,bind,noexec $f; done").unwrap();
    place.fails(&with("ada"), 4, "there is no folder in which the agent's program could be and run");
    web.run("umount /run /home /dev/shm /var/tmp /tmp").unwrap();
    web.run("mount -t tmpfs -o size=64k tmpfs /tmp").unwrap();
    let said = place.succeeds(&format!("install {root} --dry-run"));
    assert!(said.contains("/tmp: only 64 KiB are free"), "{said}");
    web.run("umount /tmp; mkdir -p /tmp/lab-lib && cp -a /var/lib/. /tmp/lab-lib; mount -t tmpfs -o size=256k tmpfs /var/lib; dd if=/dev/zero of=/var/lib/full bs=4k 2>/dev/null; :").unwrap();
    place.fails(&format!("install {root}"), 1, "no space is left on the filesystem of /var/lib/vconverter-agent");
    web.run("umount /var/lib; mount -t tmpfs -o size=256k tmpfs /usr/local").unwrap();
    place.fails(&format!("install {root}"), 1, "no space is left on the filesystem of /usr/local/sbin");
    web.run("umount /usr/local; mount --bind /etc /etc; mount -o remount,bind,ro /etc").unwrap();
    place.fails(&format!("install {root}"), 1, "the filesystem of /etc/init.d is read-only");
    web.run("umount /etc").unwrap();

    // Whether the controller is there.
    place.fails(
        &format!("install {root} --controller {NOWHERE} --timeout 2"),
        1,
        "no controller listens there: Connection refused (os error 111); everything was undone",
    );
    place.fails(&format!("install {root} --controller {NOWHERE} --timeout 2 --once"), 1, "everything was undone");
    assert_eq!(place.good_tokens(), Vec::<Value>::new(), "a token that nobody used is revoked");
    let machines = place.site.json(&["machines"]).unwrap();
    assert_eq!(machines, serde_json::json!([]));
}

/// Reads up to a line with `text`, so that something can be done at that moment.
fn until(output: &mut impl BufRead, text: &str) -> String {
    let mut said = String::new();
    while output.read_line(&mut said).unwrap() > 0 {
        if said.lines().last().is_some_and(|line| line.contains(text)) {
            return said;
        }
    }
    panic!("it ended without {text:?}: {said}");
}

#[test]
fn what_is_cut_off_in_the_middle_leaves_nothing() {
    let mut place = Place::new();
    let before = place.web.content().unwrap();
    let temporary = fs::read_dir(std::env::temp_dir()).unwrap().count();
    let root = format!("ssh://root@10.77.0.11 --identity :key --controller {NOWHERE}");
    // (up to which line, with --once, what happens, how it ends)
    let cases = [
        ("copy", "", "INT", Some(130)),
        ("write /var/lib/vconverter-agent/agent.json", "", "INT", Some(130)),
        ("wait", "", "INT", Some(130)),
        ("wait", "--once", "TERM", Some(130)),
        ("connect", "", "KILL", None),
        ("copy", "", "KILL", None),
        ("write /usr/local/sbin", "", "KILL", None),
        ("wait", "", "KILL", None),
        ("wait", "--once", "KILL", None),
    ];
    for (line, once, signal, code) in cases {
        let mut child = place.command(format!("install {root} {once}").trim_end());
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        until(&mut output, line);
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let ended = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        println!("SIG{signal} at {line:?} {once}: {ended}: {}", said.trim());
        assert_eq!(ended.code(), code, "SIG{signal} at {line:?}: {said}");
        place.is_as_before(&before, &format!("SIG{signal} at {line:?} {once}"));
    }
    println!("in the temporary folder {temporary} before, {} now", fs::read_dir(std::env::temp_dir()).unwrap().count());

    // The cable is pulled: each side finds out for itself.
    let mut child = place.command(&format!("install {root}"));
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    until(&mut output, "wait");
    let cable = place.site.lan().controller_cable();
    place.site.lan().cut(&cable).unwrap();
    place.is_as_before(&before, "the cable is pulled");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_password_is_in_no_argument_no_environment_and_no_file() {
    let place = Place::new();
    let line = format!("install ssh://ada@10.77.0.11 --password-file :password --controller {NOWHERE} --timeout 3");
    let mut child = place.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let secrets = ["not it", SSH_PASSWORD];
    let mut looked = 0;
    while child.try_wait().unwrap().is_none() {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            for name in ["cmdline", "environ"] {
                let bytes = fs::read(process.path().join(name)).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                if text.contains("10.77.0.11") || text.contains("VCONVERTER_SSH") {
                    looked += 1;
                    assert!(
                        !secrets.iter().any(|secret| text.split(['\0', ' ', '=']).any(|word| word == *secret)),
                        "{name}: {text}"
                    );
                    assert!(!text.contains("vce_"), "{name}: {text}");
                }
            }
        }
        for folder in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            if folder.file_name().to_string_lossy().starts_with("vconverter-") {
                assert_no_secret(&folder.path());
            }
        }
    }
    println!("looked {looked} times");
    assert!(looked > 10);
}

fn assert_no_secret(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            assert!(!text.contains(SSH_PASSWORD), "{}: {text}", file.path().display());
        }
    }
}
