//! Places between two steps where a test may end the process or make the next step fail, as if it
//! had been killed there, or a connection had broken. Only in a build with the feature `failpoints`,
//! which no image has; without it each place is nothing.
//!
//! `FAILPOINTS` says what happens where: <https://docs.rs/fail/0.5/fail/#usage>. `return(crash)` ends
//! the process at once, `return(error)` is an error, `return(freeze)` stops it until SIGCONT, and `2*off->1*return(crash)` happens at the third
//! time only. A place is named after its step of the way from a manifest to history.

use std::io;

#[cfg(feature = "failpoints")]
pub fn reached(place: &str) -> io::Result<()> {
    fail::fail_point!(place, |action| {
        match action.as_deref() {
            Some("crash") => {
                eprintln!("crashing at {place}");
                // No unwinding, no destructors: what a kill leaves behind.
                std::process::abort()
            }
            Some("freeze") => {
                eprintln!("freezing at {place}");
                // SIGSTOP to itself: it goes on from here when it gets a SIGCONT.
                let itself = std::process::id().to_string();
                std::process::Command::new("kill").args(["-s", "STOP", &itself]).status().map(drop)
            }
            _ => {
                eprintln!("failing at {place}");
                Err(io::Error::other(format!("made to fail at {place}")))
            }
        }
    });
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail with the feature")]
pub const fn reached(_place: &str) -> io::Result<()> {
    Ok(())
}

/// The same, as a request to the API server fails.
pub fn request(place: &str) -> Result<(), kube::Error> {
    reached(place).map_err(|error| kube::Error::Service(error.into()))
}

/// The same, as a statement fails.
pub fn statement(place: &str) -> Result<(), sqlx::Error> {
    reached(place).map_err(sqlx::Error::Io)
}

/// Reads `FAILPOINTS`, once for the life of the process.
pub fn configure() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}
