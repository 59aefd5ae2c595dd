//! `image-factory logs`: the log of a build that waits, runs, has ended or was deleted, as it grows
//! where asked. A connection that breaks is made again, and the log taken up after the last line
//! printed: no line is printed twice, none is left out.

mod events;
mod server;

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use http::{StatusCode, header::AUTHORIZATION};
use reqwest::{Response, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::{
    events::{Event, Events},
    server::{Reach, Server, Way},
};

/// The build that was followed did not succeed.
const NOT_SUCCESSFUL: u8 = 3;
/// The server says something at least every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);
const ANSWER: Duration = Duration::from_secs(30);
/// How long a server that was reached once is tried again, and one that never was.
const GIVE_UP: Duration = Duration::from_mins(5);
const GIVE_UP_UNREACHED: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(1);

/// Exits with 0 when the log was printed to its end; with --follow, with 3 when the build did not
/// succeed; with 1 when the log could not be read.
#[derive(Args)]
pub struct Arguments {
    /// Name of the Build: its newest attempt, also where it was deleted
    #[arg(required_unless_present = "id", conflicts_with = "id")]
    build: Option<String>,
    /// The attempt with this id (status.buildId of a Build, builds.id in the database)
    #[arg(long)]
    id: Option<Uuid>,
    /// Namespace of the Build. Default: that of the kubeconfig's context
    #[arg(short, long)]
    namespace: Option<String>,
    /// Go on until the build has ended
    #[arg(short, long)]
    follow: bool,
    /// Only what was printed since a time (2026-11-24T10:00:00Z) or within a duration (10m)
    #[arg(long)]
    since: Option<String>,
    /// When each line was printed, before it
    #[arg(long)]
    timestamps: bool,
    /// Of this run, instead of the newest
    #[arg(long, conflicts_with = "id")]
    run: Option<u32>,
    /// This attempt of the run, instead of the newest
    #[arg(long, conflicts_with = "id")]
    attempt: Option<u32>,
    #[command(flatten)]
    reach: Reach,
}

/// Why a request did not bring what it should.
enum Failure {
    /// It is tried again.
    Broken(anyhow::Error),
    /// The Build may have been applied just now.
    NotFound(anyhow::Error),
    Final(anyhow::Error),
    /// Nobody reads what is printed.
    Unread,
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// # Errors
/// When the log can't be read.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let server = Server::new(arguments.reach).await?;
    let mut printer = Printer {
        namespace: arguments.namespace.unwrap_or_else(|| server.namespace().to_owned()),
        build: arguments.build,
        id: arguments.id,
        run: arguments.run,
        attempt: arguments.attempt,
        follow: arguments.follow,
        since: arguments.since,
        timestamps: arguments.timestamps,
        last: None,
        reached: None,
    };
    let begun = Instant::now();
    loop {
        let failure = match printer.attempt(&server).await {
            Ok(build) => return Ok(printer.exit_code(&build)),
            Err(Failure::Unread) => return Ok(ExitCode::SUCCESS),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotFound(error)) if !printer.follow => return Err(error),
            Err(Failure::NotFound(error) | Failure::Broken(error)) => error,
        };
        let (since, patience) = printer.reached.map_or((begun, GIVE_UP_UNREACHED), |reached| (reached, GIVE_UP));
        if since.elapsed() > patience {
            return Err(failure);
        }
        sleep(RETRY).await;
    }
}

struct Printer {
    namespace: String,
    build: Option<String>,
    /// Once it is known: a name may mean another attempt by the time a connection is made again.
    id: Option<Uuid>,
    run: Option<u32>,
    attempt: Option<u32>,
    follow: bool,
    since: Option<String>,
    timestamps: bool,
    /// Number of the last line printed.
    last: Option<u64>,
    /// When the server last said something.
    reached: Option<Instant>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "line")]
    number: u64,
    at: String,
    text: String,
}

impl Printer {
    /// Prints until the log ends; gives the attempt.
    async fn attempt(&mut self, server: &Server) -> Result<Value, Failure> {
        // No operator may be ready at this moment: another takes its place.
        let way = server.way().await.map_err(Failure::Broken)?;
        let client = reqwest::Client::builder().connect_timeout(ANSWER).read_timeout(SILENCE).build()?;
        let id = match self.id {
            Some(id) => id,
            None => self.found(&client, &way).await?,
        };
        self.id = Some(id);
        let mut query = vec![("follow", self.follow.to_string())];
        query.extend(self.since.iter().map(|since| ("since", since.clone())));
        let url = address(&way.url, &["builds", &id.to_string(), "logs"]);
        let mut request = client.get(url).query(&query).header("accept", "text/event-stream");
        if let Some(last) = self.last {
            request = request.header("last-event-id", last);
        }
        let mut response = self.answered(request, &way).await?;
        let mut events = Events::default();
        while let Some(bytes) = response.chunk().await? {
            self.reached = Some(Instant::now());
            let events = events.push(&bytes).map_err(|error| Failure::Final(error.into()))?;
            if let Some(build) = self.print(&events)? {
                return Ok(build);
            }
        }
        Err(Failure::Broken(anyhow!("the server ended the stream before the log's end")))
    }

    /// The attempt that is meant.
    async fn found(&mut self, client: &reqwest::Client, way: &Way) -> Result<Uuid, Failure> {
        #[derive(Deserialize)]
        struct Found {
            id: Uuid,
        }
        let name = self.build.clone().unwrap_or_default();
        let url = address(&way.url, &["namespaces", &self.namespace, "builds", &name]);
        let number = |name, number: Option<u32>| number.map(|number| (name, number.to_string()));
        let query: Vec<_> = [number("run", self.run), number("attempt", self.attempt)].into_iter().flatten().collect();
        let response = self.answered(client.get(url).query(&query), way).await?;
        let found: Found = serde_json::from_str(&response.text().await?)
            .context("the server's answer is none of Image Factory's")
            .map_err(Failure::Final)?;
        Ok(found.id)
    }

    /// Sends a request; gives the answer where it is a success.
    async fn answered(&mut self, request: reqwest::RequestBuilder, way: &Way) -> Result<Response, Failure> {
        let request = request.header(AUTHORIZATION, way.authorization.clone());
        let response = match timeout(ANSWER, request.send()).await {
            Ok(response) => response?,
            Err(_) => return Err(Failure::Broken(anyhow!("the server does not answer"))),
        };
        let status = response.status();
        if status.is_success() {
            self.reached = Some(Instant::now());
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let sentence = serde_json::from_str::<Value>(&text).ok();
        let sentence = sentence.as_ref().and_then(|body| body["error"].as_str()).unwrap_or("it gives no reason");
        let error = anyhow!("the server answers {status}: {sentence}");
        Err(match status {
            StatusCode::NOT_FOUND => Failure::NotFound(error),
            status if status.is_server_error() => Failure::Broken(error),
            _ => Failure::Final(error),
        })
    }

    /// Prints lines; gives the attempt once there are no more.
    fn print(&mut self, events: &[Event]) -> Result<Option<Value>, Failure> {
        let foreign =
            |error: serde_json::Error| Failure::Final(anyhow!(error).context("an event is none of Image Factory's"));
        let mut out = io::BufWriter::new(io::stdout().lock());
        for event in events {
            match event.name.as_str() {
                "" => {
                    let line: Line = serde_json::from_str(&event.data).map_err(foreign)?;
                    if self.last.is_some_and(|last| line.number <= last) {
                        continue;
                    }
                    let printed = if self.timestamps {
                        writeln!(out, "{} {}", line.at, line.text)
                    } else {
                        writeln!(out, "{}", line.text)
                    };
                    printed.map_err(unprinted)?;
                    self.last = Some(line.number);
                }
                "end" => {
                    out.flush().map_err(unprinted)?;
                    let end: Value = serde_json::from_str(&event.data).map_err(foreign)?;
                    return Ok(Some(end["build"].clone()));
                }
                _ => {}
            }
        }
        out.flush().map_err(unprinted)?;
        Ok(None)
    }

    fn exit_code(&self, build: &Value) -> ExitCode {
        let text = |key: &str| build[key].as_str().unwrap_or_default();
        if !self.follow || text("status") == "success" {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "build {} is {}: {}: {}",
            text("name"),
            text("status"),
            text("failure_reason"),
            text("error_message")
        );
        ExitCode::from(NOT_SUCCESSFUL)
    }
}

fn unprinted(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        Failure::Unread
    } else {
        Failure::Final(anyhow!(error).context("failed to print"))
    }
}

/// A path of the API below the server's own, which may have a path itself.
fn address(server: &Url, path: &[&str]) -> Url {
    let mut url = server.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v1"]).extend(path);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_named_stays_one_part_of_the_path() {
        for (server, name, expected) in [
            ("http://127.0.0.1:8080", "web", "http://127.0.0.1:8080/api/v1/builds/web"),
            (
                "https://ci.example.com/factory/",
                "a/../b?c#d",
                "https://ci.example.com/factory/api/v1/builds/a%2F..%2Fb%3Fc%23d",
            ),
        ] {
            assert_eq!(address(&server.parse().unwrap(), &["builds", name]).as_str(), expected);
        }
    }
}
