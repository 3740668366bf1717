//! What is known of a task before anything is touched.

use conversion::{Preflight, Request};
use machine::Machine;
use machine::Severity;

use super::back_by::RETURN;
use super::wish::output_folder;
use super::{Forecast, Run, Tasks, Wish};
use crate::rcc::{Rcc, choose, describe};
use crate::schedule::StartAt;
use crate::store::{LogLevel, NO_AGENT_REMEDY, StepState};
use crate::{Error, ErrorKind, Result, Timestamp};

impl Tasks {
    /// Looks at a wish, without keeping it: what would keep it from being fulfilled, what should be known, and how long it
    /// takes where the machine's link was tested.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the machine, [`ErrorKind::Storage`].
    pub fn preflight(&self, wish: &Wish) -> Result<(Preflight, Option<Forecast>)> {
        let id = &wish.machine;
        let known = self.0.store.existing_machine(id)?;
        let Some(report) = &known.report else {
            let mut found = Preflight::default();
            let says = format!("machine {id} was added by its address and has no agent");
            found.find("agent", Severity::Blocker, says, NO_AGENT_REMEDY);
            return Ok((found, None));
        };
        let mut found = conversion::preflight(report, &wish.request);
        if let Err(error) = output_folder(&wish.request) {
            found.find(
                "output",
                Severity::Blocker,
                error.chain(),
                "name an existing folder of the controller, and a free name",
            );
        }
        let (name, output) = (&wish.request.name, wish.request.output.to_string_lossy());
        if let Some(task) = self.0.store.maker_of(&output, name)? {
            let says = format!("task {} makes {name} in {} already", task.id, task.output);
            found.find("name", Severity::Blocker, says, "choose another name, or cancel that task");
        }
        if self.0.sessions.kind_of(id).is_none() {
            let severity = if wish.wait { Severity::Info } else { Severity::Blocker };
            let remedy = "start it from the boot image, or let the task wait for it";
            found.find("connection", severity, format!("machine {id} is not connected"), remedy);
        }
        if let Some(rcc) = &wish.rcc {
            self.look_at_restart(id, rcc, &mut found);
        }
        let now = Timestamp::now();
        let start_at = wish.schedule.as_ref().and_then(|schedule| schedule.start_at.as_ref()).map(StartAt::instant);
        let start = start_at.map_or(now, |at| at.max(now));
        let forecast = self.forecast(id, found.bytes, wish.bytes_per_second, start)?;
        if let (Some(forecast), Some(back_by)) = (&forecast, &wish.back_by)
            && let Some(by) = back_by.next(start)
            && forecast.end(start).after(RETURN) > by
        {
            let (begun, end) = (start, forecast.end(start));
            let says =
                format!("a copy that begins at {begun} would end at {end}, and the machine must be back by {by}");
            let remedy =
                "begin earlier; else the copy is stopped in time, what is copied is kept, and a retry goes on with it";
            found.find("back-by", Severity::Warning, says, remedy);
        }
        Ok((found, forecast))
    }

    /// How the machine would be restarted into the boot image, or why it cannot be.
    fn look_at_restart(&self, machine: &str, rcc: &Rcc, found: &mut Preflight) {
        let survey = match rcc.check().and_then(|()| self.survey(machine)) {
            Ok(survey) => survey,
            Err(error) => {
                let remedy = "install its agent (`vconverter agent install`), or start the machine from the boot image's ISO or by PXE";
                return found.find("restart", Severity::Blocker, error.chain(), remedy);
            }
        };
        let choice = choose(&survey, rcc);
        for blocker in &choice.blockers {
            let (says, remedy) = blocker.rsplit_once(": ").unwrap_or((blocker, ""));
            found.find("restart", Severity::Blocker, says.to_owned(), remedy);
        }
        if choice.blockers.is_empty() {
            let remedy = "its boot path is written down before and restored before anything is copied";
            found.find("restart", Severity::Info, describe(&choice), remedy);
        }
        for note in choice.notes {
            found.find("restart", Severity::Info, note, "nothing needs to be done");
        }
    }

    /// Before a task copies for the first time: what is found goes into its log.
    pub(super) fn check_before_copy(&self, run: &Run, machine: &Machine, request: &Request) -> Result<()> {
        let steps = self.0.store.task_steps(&run.lease.task)?;
        let copies = |step: &crate::store::TaskStep| step.step == conversion::Step::Copy;
        if request.dry_run || steps.iter().any(|step| copies(step) && step.state != StepState::Pending) {
            return Ok(());
        }
        let found = conversion::preflight(machine, request);
        for finding in &found.findings {
            let level = if finding.severity == Severity::Info { LogLevel::Info } else { LogLevel::Warning };
            let says = format!("{}: {}", finding.found, finding.remedy);
            self.0.store.task_says(&run.lease, level, &says)?;
        }
        match found.blockers().next() {
            None => Ok(()),
            Some(blocker) => Err(Error::new(ErrorKind::Conversion, format!("{}: {}", blocker.found, blocker.remedy))),
        }
    }
}
