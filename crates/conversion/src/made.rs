//! A result that is whole and of which nobody was told: the controller was killed right after it got its name.

use crate::choices::Selection;
use crate::pipeline::Record;
use crate::workdir::Published;
use crate::{Outcome, Request, Result, Source};

/// What an earlier run for the same task made. A result of another task, or of none, is no answer to this one: it may be of
/// another day.
pub(crate) fn made_before(source: &Source, request: &Request) -> Result<Option<Outcome>> {
    let Source::Remote(remote) = source else { return Ok(None) };
    let Some(task) = remote.task().filter(|_| !request.dry_run) else { return Ok(None) };
    let Some(published) = Published::<Record>::find(request)? else { return Ok(None) };
    let record = &published.state;
    if record.task.as_deref() != Some(task) || record.joined_disks.is_none() {
        return Ok(None);
    }
    let selection = Selection::of(&record.machine, &record.request)?;
    published.settle(&record.annexes(&selection, &published.workdir));
    Ok(Some(published.state.outcome(&selection, published.folder)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use machine::{ByteCount, Disk, DiskIdentity, DiskLayout, Machine, SectorSize};

    use crate::workdir::Workdir;
    use crate::{Cancel, DataStream, Error, ErrorKind, RemoteMachine, StreamRequest, Visit};

    use super::*;

    /// A machine that serves nothing any more.
    struct Gone(&'static str);

    impl RemoteMachine for Gone {
        fn machine(&self) -> Machine {
            machine()
        }

        fn task(&self) -> Option<&str> {
            Some(self.0)
        }

        fn visit(&self, _begun: Option<&Visit>, _cancel: &Cancel) -> Result<Option<Visit>> {
            Ok(None)
        }

        fn open_stream(&self, _request: &StreamRequest, _cancel: &Cancel) -> Result<Box<dyn DataStream>> {
            Err(Error::new(ErrorKind::Source, "gone"))
        }
    }

    fn machine() -> Machine {
        let disk = Disk {
            path: "/dev/sda".into(),
            format: "raw".into(),
            virtual_size: ByteCount::mib(1),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity::default(),
            layout: DiskLayout::default(),
        };
        Machine { disks: vec![disk], ..Machine::default() }
    }

    /// A result that got its name, and of which its task was not told.
    fn publish(request: &Request, task: &str) {
        let workdir = Workdir::open(request).unwrap();
        let mut record = Record::new(request, &machine(), vec![0]);
        (record.task, record.joined_disks) = (Some(task.into()), Some(vec![true]));
        record.warnings.push("as it was".into());
        workdir.store(&record).unwrap();
        workdir.publish(&[], &[]).unwrap();
    }

    fn made(task: &'static str, request: &Request) -> Option<Outcome> {
        made_before(&Source::Remote(Arc::new(Gone(task))), request).unwrap()
    }

    fn request(output: &Path) -> Request {
        Request { name: "vm".into(), output: output.into(), ..Request::default() }
    }

    #[test]
    fn a_task_that_was_not_told_of_its_result_is_told_by_the_next_run_and_no_other_task_is() {
        let output = tempfile::tempdir().unwrap();
        let request = request(output.path());
        assert_eq!(made("t-1", &request), None, "nothing is there");
        publish(&request, "t-1");
        let lock = output.path().join("vm/lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(made("t-2", &request), None);
        assert!(lock.exists(), "what is another's is left alone");
        let outcome = made("t-1", &request).unwrap();
        assert_eq!((outcome.name.as_str(), outcome.folder.ends_with("vm"), outcome.warnings.len()), ("vm", true, 1));
        assert!(!lock.exists());
        assert_eq!(made("t-1", &Request { dry_run: true, ..request.clone() }), None);
        fs::write(output.path().join("vm/conversion.json"), "a letter").unwrap();
        assert_eq!(made("t-1", &request), None, "a folder of somebody else's");
    }
}
