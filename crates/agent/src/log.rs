//! The one way to the container's log. A builder's output and the agent's own sentences pass through it in order, freed
//! of secrets, cut into lines and counted exactly as written: these counts are what the operator later compares with
//! what it stored.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lines::LineCutter;
use crate::mask::{Mask, Masked};

/// Shared between the thread that reads a command's output and the one that watches the command.
#[derive(Clone)]
pub struct Log(Arc<Mutex<State>>);

struct State {
    /// What must not be seen; none where nothing is secret, and output is passed on as it comes.
    mask: Option<Arc<Mask>>,
    masked: Option<Masked>,
    cutter: LineCutter,
    /// Which command's output is taken; what comes late from an earlier one is dropped.
    stream: u64,
    written: Written,
}

/// What has reached the log so far.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub lines: u64,
    pub bytes: u64,
    /// The first failure; after it output is read and dropped, so that the builder can still end in its own way.
    pub failure: Option<String>,
}

impl Log {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            mask: None,
            masked: None,
            cutter: LineCutter::default(),
            stream: 0,
            written: Written::default(),
        })))
    }

    /// From the next stream and sentence on.
    pub fn hide(&self, mask: Mask) {
        self.state().mask = Some(Arc::new(mask)).filter(|mask| !mask.is_empty());
    }

    /// Begins a command's output; the number names it.
    pub fn open_stream(&self) -> u64 {
        self.close_stream();
        let mut state = self.state();
        state.masked = state.mask.clone().map(Masked::new);
        state.stream
    }

    /// Takes some of a command's output. False: that stream is closed and nothing of it is wanted any more.
    pub fn accept(&self, stream: u64, output: &[u8]) -> bool {
        let mut state = self.state();
        if state.stream != stream {
            return false;
        }
        state.take(output);
        true
    }

    /// Ends the current command's output, with a newline where its last line has none.
    pub fn close_stream(&self) {
        let mut state = self.state();
        if let Some(mut masked) = state.masked.take() {
            let mut rest = Vec::new();
            masked.finish(&mut rest);
            state.take(&rest);
        }
        let mut lines = Vec::new();
        let count = state.cutter.finish(&mut lines);
        state.written.write(&lines, count);
        state.stream += 1;
    }

    /// A sentence of the agent's own, between two streams.
    pub fn say(&self, sentence: &str) {
        self.print(&format!("image-factory-agent: {sentence}"));
    }

    /// A line between two streams that needs no name before it.
    pub fn print(&self, line: &str) {
        let mut state = self.state();
        let mut text = line.as_bytes().to_vec();
        if let Some(mut masked) = state.mask.clone().map(Masked::new) {
            let sentence = std::mem::take(&mut text);
            masked.push(&sentence, &mut text);
            masked.finish(&mut text);
        }
        let mut lines = Vec::new();
        let mut cutter = LineCutter::default();
        let count = cutter.push(&text, &mut lines) + cutter.finish(&mut lines);
        state.written.write(&lines, count);
    }

    pub fn written(&self) -> Written {
        self.state().written.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that died while it held the lock left counts that are still true.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, output: &[u8]) {
        let mut free = Vec::new();
        let output = match &mut self.masked {
            Some(masked) => {
                masked.push(output, &mut free);
                &free
            }
            None => output,
        };
        let mut lines = Vec::with_capacity(output.len() + 1);
        let count = self.cutter.push(output, &mut lines);
        self.written.write(&lines, count);
    }
}

impl Written {
    fn write(&mut self, lines: &[u8], count: u64) {
        if lines.is_empty() || self.failure.is_some() {
            return;
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(lines).and_then(|()| stdout.flush()) {
            Ok(()) => {
                self.lines += count;
                self.bytes += lines.len() as u64;
            }
            Err(error) => self.failure = Some(format!("failed to write the log: {error}")),
        }
    }
}
