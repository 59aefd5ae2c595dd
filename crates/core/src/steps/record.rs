//! What is kept of each step, and of how much: the number of steps, their names and their output are
//! bounded, whatever a log says. Of output the end is kept, for that is where an error is told.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{End, exit_code, instruction, tail::Tail};

/// Most steps of a build. Further ones are not recorded.
pub(super) const STEPS: usize = 1_000;
/// Longest name of a step in bytes; a name is one line of a log.
const NAME_BYTES: usize = 2_048;
/// Longest output of a step in bytes, while no more than so many run; more share what those would have.
const OUTPUT_BYTES: usize = 64 * 1024;
const AT_ONCE: usize = 16;
/// The most that its error lines may have.
const ERROR_BYTES: usize = 8 * 1024;

/// `build_steps.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    Running,
    Success,
    Failed,
    /// It had begun and was not finished: another step failed, or the run was cancelled.
    Skipped,
}

impl StepStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// The builder's sentence.
    pub message: String,
    /// The exit code of the step's command, as printed.
    pub code: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// From 1, in the order in which the builder told of them.
    pub number: i32,
    /// As the builder prints it: `RUN npm ci`.
    pub name: String,
    /// The Dockerfile instruction in capitals; `None` where the step is none.
    pub instruction: Option<&'static str>,
    pub status: StepStatus,
    pub cached: bool,
    /// What the builder calls the stage (with its platform), where it tells stages apart.
    pub stage: String,
    /// Its place in the stage: the builder's own count, or else as it came.
    pub place: u32,
    pub error: Option<StepError>,
    /// How long it took; `None` until it ended, or where the builder does not say.
    pub milliseconds: Option<i64>,
    started: Timestamp,
    output: Tail,
    /// Error lines with which the log may be at its end.
    errors: Tail,
    changed: bool,
    /// Its output was given away.
    told: bool,
}

impl Step {
    fn end(&mut self, status: StepStatus, milliseconds: Option<i64>) {
        self.status = status;
        self.milliseconds = milliseconds;
        self.changed = true;
    }

    fn since_start(&self, at: Timestamp) -> Option<i64> {
        Some(at.duration_since(self.started).as_millis()).and_then(|ms| i64::try_from(ms.max(0)).ok())
    }
}

/// A step as it is to be stored. `stdout` and `stderr`: `None` leaves what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub number: i32,
    pub name: String,
    pub instruction: Option<&'static str>,
    pub status: StepStatus,
    pub cached: bool,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub error: Option<StepError>,
    /// Rounded half up.
    pub duration_seconds: Option<i32>,
}

/// `status.step`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The step that failed, or the newest that runs.
    pub current: Option<String>,
    /// Steps that have ended.
    pub done: usize,
    /// Steps known so far: told of, and announced by the builder.
    pub total: usize,
    pub cached: usize,
}

/// Names a step to the parser that began it. One beyond the cap is none: nothing is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

#[derive(Debug, Default)]
pub(super) struct Record {
    steps: Vec<Step>,
    /// Per stage: how many steps the builder says it has.
    announced: BTreeMap<String, usize>,
    /// Whose output was read last, since a step began.
    spoke: Option<Id>,
    over: bool,
    /// Steps that ran when the newest began.
    running: usize,
}

impl Record {
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn step(&mut self, id: Id) -> Option<&mut Step> {
        self.steps.get_mut(id.0)
    }

    pub fn begin(&mut self, at: Timestamp, name: &str, stage: &str) -> Id {
        if self.steps.len() >= STEPS {
            self.spoke = None;
            return Id(usize::MAX);
        }
        self.spoke = None;
        self.running = self.steps.iter().filter(|step| step.status == StepStatus::Running).count() + 1;
        let name = first_bytes(name.trim(), NAME_BYTES);
        self.steps.push(Step {
            number: i32::try_from(self.steps.len() + 1).unwrap_or(i32::MAX),
            instruction: instruction(&name),
            name,
            status: StepStatus::Running,
            cached: false,
            stage: first_bytes(stage, NAME_BYTES),
            place: u32::try_from(self.steps.len()).unwrap_or(u32::MAX),
            error: None,
            milliseconds: None,
            started: at,
            output: Tail::new(OUTPUT_BYTES),
            errors: Tail::new(ERROR_BYTES),
            changed: true,
            told: false,
        });
        Id(self.steps.len() - 1)
    }

    /// The builder tells of the step anew: what was taken for its beginning was not.
    pub fn restart(&mut self, id: Id, at: Timestamp, name: &str) {
        if let Some(step) = self.step(id) {
            step.name = first_bytes(name.trim(), NAME_BYTES);
            step.instruction = instruction(&step.name);
            step.started = at;
            step.output = Tail::new(OUTPUT_BYTES);
            step.errors = Tail::new(ERROR_BYTES);
            step.changed = true;
        }
    }

    /// A step that is not an instruction, though its name may begin like one; or another than it begins with.
    pub fn classify(&mut self, id: Id, instruction: Option<&'static str>) {
        if let Some(step) = self.step(id) {
            step.instruction = instruction;
        }
    }

    /// Where the builder says that it stands in its stage.
    pub fn place(&mut self, id: Id, place: u32) {
        if let Some(step) = self.step(id) {
            step.place = place;
        }
    }

    /// How many steps the builder says that a stage has.
    pub fn announce(&mut self, stage: &str, total: u32) {
        let total = usize::try_from(total).unwrap_or(usize::MAX).min(STEPS);
        if self.announced.len() < STEPS || self.announced.contains_key(stage) {
            self.announced.insert(first_bytes(stage, NAME_BYTES), total);
        }
    }

    /// The rest of a line that was cut.
    pub fn go_on(&mut self, text: &str) {
        if let Some(id) = self.spoke {
            self.output(id, text);
        }
    }

    pub fn output(&mut self, id: Id, text: &str) {
        self.spoke = Some(id);
        let share = OUTPUT_BYTES * AT_ONCE / self.running.max(AT_ONCE);
        let Some(step) = self.step(id) else { return };
        if step.told {
            return;
        }
        step.output.bytes = share;
        // The log went on: those were no last words.
        let errors = std::mem::replace(&mut step.errors, Tail::new(ERROR_BYTES)).finish();
        if let Some(errors) = errors {
            step.output.line(&errors);
        }
        step.output.line(text);
    }

    /// A line with which the builder may be telling why the step failed, if nothing follows.
    pub fn error_line(&mut self, id: Id, text: &str) {
        if let Some(step) = self.step(id).filter(|step| !step.told) {
            step.errors.line(text);
        }
    }

    pub fn cached(&mut self, id: Id) {
        if let Some(step) = self.step(id) {
            step.cached = true;
            step.changed = true;
        }
    }

    /// It ended at `at`.
    pub fn succeed(&mut self, id: Id, at: Timestamp) {
        if let Some(step) = self.step(id) {
            let took = step.since_start(at);
            step.end(StepStatus::Success, took);
        }
    }

    /// It ended, and the builder says how long it took, or does not.
    pub fn succeed_after(&mut self, id: Id, milliseconds: Option<i64>) {
        if let Some(step) = self.step(id) {
            step.end(StepStatus::Success, milliseconds);
        }
    }

    pub fn skip(&mut self, id: Id, at: Timestamp) {
        if let Some(step) = self.step(id) {
            let took = step.since_start(at);
            step.end(StepStatus::Skipped, took);
        }
    }

    pub fn fail(&mut self, id: Id, at: Timestamp, message: &str) {
        if let Some(step) = self.step(id) {
            let took = step.since_start(at);
            step.end(StepStatus::Failed, took);
            step.error = Some(StepError { message: first_bytes(message, ERROR_BYTES), code: exit_code(message) });
        }
    }

    /// The newest step with this status and name, as `same` compares them.
    pub fn find(&self, same: impl Fn(&Step) -> bool) -> Option<Id> {
        self.steps.iter().rposition(same).map(Id)
    }

    pub fn has_failed(&self) -> bool {
        self.steps.iter().any(|step| step.status == StepStatus::Failed)
    }

    pub fn end(&mut self, end: End<'_>, last: Option<Timestamp>) {
        let failed = self.has_failed();
        self.over = true;
        for step in self.steps.iter_mut().filter(|step| step.status == StepStatus::Running) {
            let took = last.and_then(|at| step.since_start(at));
            match end {
                End::Success => step.end(StepStatus::Success, took),
                End::Failed(message) if !failed => {
                    step.end(StepStatus::Failed, took);
                    let said = step.errors.last().map(|error| without_what_is_known(error, &step.name).to_owned());
                    let message = first_bytes(&said.unwrap_or_else(|| message.to_owned()), ERROR_BYTES);
                    step.error = Some(StepError { code: exit_code(&message), message });
                }
                End::Failed(_) | End::Cancelled => step.end(StepStatus::Skipped, took),
            }
        }
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        self.steps.iter_mut().filter(|step| step.changed).map(change).collect()
    }

    pub fn progress(&self) -> Progress {
        let count = |is: fn(&Step) -> bool| self.steps.iter().filter(|step| is(step)).count();
        let newest = |status| self.steps.iter().rev().find(|step| step.status == status);
        let current = newest(StepStatus::Failed).or_else(|| newest(StepStatus::Running));
        Progress {
            current: current.map(|step| step.name.clone()),
            done: count(|step| step.status != StepStatus::Running),
            total: if self.over && !self.has_failed() { self.steps.len() } else { self.expected() },
            cached: count(|step| step.cached),
        }
    }

    /// Steps known of: in a stage the builder counted, as many as it said; else as many as it told of.
    fn expected(&self) -> usize {
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for step in &self.steps {
            *told.entry(&step.stage).or_default() += 1;
        }
        told.iter().map(|(stage, told)| self.announced.get(*stage).copied().unwrap_or(0).max(*told)).sum()
    }
}

fn change(step: &mut Step) -> Change {
    step.changed = false;
    let ended = step.status != StepStatus::Running;
    let failed = step.status == StepStatus::Failed;
    let (mut stdout, mut stderr) = (None, None);
    if ended && !step.told {
        step.told = true;
        let errors = std::mem::replace(&mut step.errors, Tail::new(0)).finish();
        let mut output = std::mem::replace(&mut step.output, Tail::new(0));
        match errors {
            Some(errors) if failed => stderr = Some(errors),
            Some(errors) => output.line(&errors),
            None => {}
        }
        stdout = Some(output.finish().unwrap_or_default());
    }
    Change {
        number: step.number,
        name: step.name.clone(),
        instruction: step.instruction,
        status: step.status,
        cached: step.cached,
        stdout,
        stderr,
        error: step.error.clone(),
        duration_seconds: step.milliseconds.map(|ms| i32::try_from((ms + 500) / 1_000).unwrap_or(i32::MAX)),
    }
}

/// An error line without what the step's own row says already.
fn without_what_is_known<'a>(error: &'a str, name: &str) -> &'a str {
    let mut rest = error.trim();
    for known in [
        "ERROR: ",
        "Error: ",
        "error: ",
        "error building image: ",
        "error building stage: ",
        "failed to execute command: ",
    ] {
        rest = rest.strip_prefix(known).unwrap_or(rest);
    }
    let quoted = rest.strip_prefix("building at STEP \"").and_then(|rest| rest.strip_prefix(name));
    quoted.and_then(|rest| rest.strip_prefix("\": ")).unwrap_or(rest)
}

fn first_bytes(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
