//! A boot image that was pushed onto its machine: its secret, and what becomes of it when a part of this program fails.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::console::{self, log};
use crate::{Error, Result};

/// Where the push puts the enrolment token.
pub const TOKEN: &str = "/vconverter.token";
/// Longer ones are none, in bytes.
const TOKEN_LENGTH_MAX: u64 = 4096;

/// Moves the token to where the agent takes it from, readable for its owner only; what stood in `from` is written over.
/// Without one there is nothing to do.
///
/// # Errors
/// It cannot be read, kept or removed.
pub fn take_token(from: &Path, to: &Path) -> Result<()> {
    let length = match fs::metadata(from) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::path("read", from, error)),
    };
    if length > TOKEN_LENGTH_MAX {
        return Err(Error::new(format!("{}: expected at most {TOKEN_LENGTH_MAX} bytes", from.display())));
    }
    let token = fs::read(from).map_err(|e| Error::path("read", from, e))?;
    let folder = to.parent().unwrap_or(Path::new("/"));
    let kept = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
        file.write_all(&token)
    });
    let gone = fs::write(from, vec![0; token.len()]).and_then(|()| fs::remove_file(from));
    kept.map_err(|e| Error::path("write", to, e))?;
    gone.map_err(|e| Error::path("remove", from, e))
}

/// From now on a panic of any thread ends PID 1, which the kernel answers with a panic of its own, and that with a restart
/// (`panic=` on its command line): a boot image of which a part is dead is no place to be for a machine that nobody looks after.
pub fn restart_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        log(format!("panic: {panic}; the machine's own system is started"));
        console::drain(Duration::from_secs(1));
        std::process::exit(101);
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_token_is_for_the_agent_alone_and_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("vconverter.token"), folder.path().join("run/agent/token"));
        take_token(&from, &to).unwrap();
        assert!(!to.exists(), "nothing was pushed");
        fs::write(&from, "vct_secret").unwrap();
        take_token(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "vct_secret");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!from.exists());
        fs::write(&from, vec![b'x'; 5000]).unwrap();
        assert!(take_token(&from, &to).unwrap_err().context.contains("expected at most 4096"));
    }

    /// Not a test by itself: what the next one starts.
    #[test]
    fn panics_in_a_thread() {
        if std::env::var_os("VCONVERTER_TEST_PANIC").is_some() {
            restart_on_panic();
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            println!("still here");
        }
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_program() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "push::tests::panics_in_a_thread", "--nocapture"]).env("VCONVERTER_TEST_PANIC", "1");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert_eq!(output.status.code(), Some(101));
        assert!(said.contains("on purpose") && !said.contains("still here"));
    }
}
