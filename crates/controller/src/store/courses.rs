//! How automated Remote Cold Clonings went: changed by the task at work, and by what machines tell of their boot paths.

use machine::push::BootPathReport;
use protocol::message::AgentKind;
use rusqlite::params;

use super::logs::write_task_log;
use super::tasks::query;
use super::{LogLevel, Store, storage, to_json};
use crate::rcc::Course;
use crate::{Result, Timestamp};

/// Lines of a report that are kept, and characters of each.
const LINES_MAX: usize = 100;
const LINE_CHARS_MAX: usize = 500;

impl Store {
    /// Changes the course of a task, and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for the task, [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn change_course(&self, task: &str, change: impl FnOnce(&mut Course)) -> Result<Course> {
        let context = "course cannot be written";
        self.write(context, |transaction| {
            let mut course = super::tasks::one(transaction, task)?.course()?;
            change(&mut course);
            let json = to_json("course", &course)?;
            let sql = "UPDATE tasks SET course = ?2 WHERE id = ?1";
            transaction.execute(sql, params![task, json]).map_err(|e| storage(context, e))?;
            Ok(course)
        })
    }

    /// A machine says what it found of its boot path, in the boot image or in its own system. One of a task that is none of this
    /// machine is not kept.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn boot_path_told(&self, machine: &str, kind: AgentKind, report: &BootPathReport) -> Result<bool> {
        let context = "course cannot be written";
        let report = shortened(report);
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let found =
                query(transaction, "id = ?1 AND machine = ?2 AND rcc IS NOT NULL", [&report.task, machine])?.pop();
            let Some(task) = found else { return Ok(false) };
            let mut course = task.course()?;
            let place = match kind {
                AgentKind::BootImage => {
                    course.arrived_at.get_or_insert(now);
                    course.restored = Some(report.clone());
                    "the boot image"
                }
                _ => {
                    if course.is_away() {
                        course.back_at = Some(now);
                    }
                    course.boot_path = Some(report.clone());
                    "its own system"
                }
            };
            for line in &report.undone {
                write_task_log(transaction, &task.id, LogLevel::Info, &format!("{place}: {line}"))?;
            }
            for line in &report.differences {
                write_task_log(transaction, &task.id, LogLevel::Error, &format!("{place}: boot path: {line}"))?;
            }
            if report.differences.is_empty() {
                let says = format!("{place}: the boot path is as it was recorded");
                write_task_log(transaction, &task.id, LogLevel::Info, &says)?;
            }
            let json = to_json("course", &course)?;
            let sql = "UPDATE tasks SET course = ?2 WHERE id = ?1";
            transaction.execute(sql, params![task.id, json]).map_err(|e| storage(context, e))?;
            Ok(true)
        })
    }
}

fn shortened(report: &BootPathReport) -> BootPathReport {
    let line = |line: &String| line.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect();
    let lines = |lines: &[String]| lines.iter().take(LINES_MAX).map(line).collect();
    BootPathReport {
        task: line(&report.task),
        way: report.way,
        undone: lines(&report.undone),
        differences: lines(&report.differences),
    }
}

#[cfg(test)]
mod tests {
    use machine::push::Way;

    use super::super::tests::store_with_task;
    use super::*;

    #[test]
    fn a_boot_path_is_kept_with_its_task_and_with_no_other_machines() {
        let (_folder, store, task) = store_with_task();
        let machine = store.task(&task).unwrap().unwrap().machine;
        let report = BootPathReport { task: task.clone(), way: Some(Way::Kexec), ..BootPathReport::default() };
        assert!(!store.boot_path_told(&machine, AgentKind::Agent, &report).unwrap(), "it was never restarted for it");
        store.connection().execute("UPDATE tasks SET rcc = '{}'", []).unwrap();
        assert!(!store.boot_path_told("m-00000000", AgentKind::Agent, &report).unwrap());
        store.change_course(&task, |course| course.restarted_at = Some(Timestamp(1000))).unwrap();
        assert!(store.boot_path_told(&machine, AgentKind::BootImage, &report).unwrap());
        let course = store.task(&task).unwrap().unwrap().course().unwrap();
        assert!(course.arrived_at.is_some() && course.restored.is_some() && course.is_away());
        let long = vec!["x\u{1b}".repeat(10_000); 1000];
        let report = BootPathReport { differences: long, ..report };
        assert!(store.boot_path_told(&machine, AgentKind::Agent, &report).unwrap());
        let course = store.task(&task).unwrap().unwrap().course().unwrap();
        let kept = course.boot_path.unwrap().differences;
        assert!(course.back_at.is_some() && kept.len() == LINES_MAX && kept[0].len() == LINE_CHARS_MAX);
    }
}
