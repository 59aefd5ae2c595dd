//! The agent: a small static binary that runs a builder inside the builder's own image, where nothing of ours can be
//! expected, not even a shell. This file only hands over.

mod arguments;
mod bring;
mod cgroup;
mod daemon;
mod install;
mod lifecycle;
mod lines;
mod log;
mod mask;
mod process;
mod run;
mod secrets;
mod tree;

use std::process::ExitCode;

use arguments::Task;

fn main() -> ExitCode {
    if let Some(code) = lifecycle::as_buildpack(std::env::args_os()) {
        return code;
    }
    match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Task::Run(options)) => exit_code(run::run(&options)),
        Ok(Task::Bring(bring)) => bring::run(&bring),
        Ok(Task::Daemon(options)) => exit_code(daemon::run(&options)),
        Ok(Task::Install(folder)) => match install::install(&folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("image-factory-agent: failed to install into {}: {error}", folder.display());
                ExitCode::FAILURE
            }
        },
        Err(sentence) => {
            eprintln!("image-factory-agent: {sentence}\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

/// A process has one byte for its exit code; what does not fit is still not a success.
fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
